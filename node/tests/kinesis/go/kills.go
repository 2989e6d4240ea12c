// Writers and readers of a stream at work while nodes are killed and the stream is resharded, through whichever SDK for Go, with
// the attempts that it makes by itself:
//
//	kills_v1|kills_v2 http://HOST:PORT STREAM CONSUMER_ARN NAME
//
// Writers put one record at a time, or 20; two readers of all shards, from parents to children, poll or subscribe. On a line of
// its input the writers stop, and at its end the readers do, once they are at the tip of every shard. Then it says what was
// done, a line each; kills_sdks.py judges that:
//
//	sent WRITER RECORDS
//	acked SHARD NUMBER TEXT
//	polled|pushed SHARD NUMBER TEXT
//	count WHAT: N
package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	writers = 3
	longest = "longest wait of a writer, ms"
)

// A sdk calls the node. What it can't mend by itself is the program's end, save what ends a subscription.
type sdk interface {
	shards() []string
	// put stores a record under a key.
	put(key, text string) placed
	// putMany stores records, each under its text as a key.
	putMany(texts []string) []placed
	begin(shard string) (iterator string)
	records(iterator string) page
	// subscribe gives events until there are no more, or `give` wants no more; from the shard's oldest record on, or after a
	// number. Another subscription in its place is `busy`.
	subscribe(shard, after string, give func(page) bool) error
}

// A record that was put, or why it was not.
type placed struct{ shard, number, failure string }

type record struct{ number, text string }

// A page of a shard's records, or an event: the next one is behind `next`, an iterator or a number; the shard's end has none, but
// children.
type page struct {
	records  []record
	next     *string
	behind   int64
	children []child
}

type child struct {
	shard   string
	parents []string
}

// The subscription that has just been lost counts for five seconds.
var busy = fmt.Errorf("another subscription is in its place")

var (
	lines   []string
	counted = map[string]int{}
	said    sync.Mutex
	// Whether writers are to stop, and whether readers are.
	stopped, finished atomic.Bool
)

func say(format string, what ...any) {
	said.Lock()
	defer said.Unlock()
	lines = append(lines, fmt.Sprintf(format, what...))
}

func count(what string, more int) {
	said.Lock()
	defer said.Unlock()
	counted[what] += more
}

// A lineage knows which shards are to be read: children once all of their parents have been read to the end.
type lineage struct {
	begun, ended map[string]bool
	lock         sync.Mutex
}

func lineageOf(shards []string) *lineage {
	made := &lineage{begun: map[string]bool{}, ended: map[string]bool{}}
	for _, it := range shards {
		made.begun[it] = true
	}
	return made
}

func (l *lineage) end(shard string, children []child) (found []string) {
	l.lock.Lock()
	defer l.lock.Unlock()
	l.ended[shard] = true
	for _, it := range children {
		ready := !l.begun[it.shard]
		for _, parent := range it.parents {
			ready = ready && l.ended[parent]
		}
		if ready {
			l.begun[it.shard] = true
			found = append(found, it.shard)
		}
	}
	return found
}

func work(it sdk, name string) {
	var writing, reading sync.WaitGroup
	begin := func(group *sync.WaitGroup, work func()) {
		group.Add(1)
		go func() {
			defer group.Done()
			work()
		}()
	}
	shards := it.shards()
	begin(&reading, func() { poll(it, shards) })
	family := lineageOf(shards)
	for _, shard := range shards {
		shard := shard
		begin(&reading, func() { follow(it, shard, family) })
	}
	for n := 0; n < writers; n++ {
		writer := fmt.Sprintf("%s-%d", name, n)
		begin(&writing, func() { write(it, writer) })
	}
	begin(&writing, func() { writeMany(it, name+"-many") })
	fmt.Println("at work")
	input := bufio.NewReader(os.Stdin)
	must(input.ReadString('\n'))
	stopped.Store(true)
	writing.Wait()
	fmt.Println("stopped")
	must(io.Copy(io.Discard, input))
	finished.Store(true)
	reading.Wait()
	for what, n := range counted {
		say("count %s: %d", what, n)
	}
	fmt.Println(strings.Join(lines, "\n"))
}

func write(it sdk, writer string) {
	n := 0
	for ; !stopped.Load(); n++ {
		text := fmt.Sprintf("%s:%d", writer, n)
		begun := time.Now()
		put := it.put(writer, text)
		said.Lock()
		if waited := int(time.Since(begun).Milliseconds()); waited > counted[longest] {
			counted[longest] = waited
		}
		said.Unlock()
		say("acked %s %s %s", put.shard, put.number, text)
	}
	say("sent %s %d", writer, n)
}

// Puts again those that failed, as the API asks of it.
func writeMany(it sdk, writer string) {
	n := 0
	for !stopped.Load() {
		var texts []string
		for end := n + 20; n < end; n++ {
			texts = append(texts, fmt.Sprintf("%s:%d", writer, n))
		}
		for len(texts) > 0 {
			var failed []string
			for at, put := range it.putMany(texts) {
				if put.failure != "" {
					count("records failed: "+put.failure, 1)
					failed = append(failed, texts[at])
				} else {
					say("acked %s %s %s", put.shard, put.number, texts[at])
				}
			}
			texts = failed
		}
	}
	say("sent %s %d", writer, n)
}

func read(how, shard string, records []record) {
	for _, it := range records {
		say("%s %s %s %s", how, shard, it.number, it.text)
	}
}

func poll(it sdk, shards []string) {
	family := lineageOf(shards)
	iterators := map[string]string{}
	for _, shard := range shards {
		iterators[shard] = it.begin(shard)
	}
	for last, moved := false, true; !last || moved; time.Sleep(50 * time.Millisecond) {
		last, moved = finished.Load(), false
		for shard, iterator := range iterators {
			found := it.records(iterator)
			read("polled", shard, found.records)
			moved = moved || len(found.records) > 0 || found.behind > 0 || found.next == nil
			if found.next != nil {
				iterators[shard] = *found.next
				continue
			}
			delete(iterators, shard)
			for _, child := range family.end(shard, found.children) {
				iterators[child] = it.begin(child)
			}
		}
	}
}

// Subscribes again after the last event, as a consumer of the service does at least every five minutes.
func follow(it sdk, shard string, family *lineage) {
	after, over := "", false
	var children []string
	for !over {
		err := it.subscribe(shard, after, func(event page) bool {
			read("pushed", shard, event.records)
			if event.next == nil {
				over, children = true, family.end(shard, event.children)
			} else {
				after = *event.next
				over = finished.Load() && len(event.records) == 0 && event.behind == 0
			}
			return !over
		})
		switch {
		case err == busy:
			count("subscriptions refused for one before", 1)
			time.Sleep(time.Second)
		case err != nil:
			count(fmt.Sprintf("subscriptions lost: %T", err), 1)
		case !over:
			count("subscriptions ended early", 1)
		}
	}
	var followers sync.WaitGroup
	for _, child := range children {
		child := child
		followers.Add(1)
		go func() {
			defer followers.Done()
			follow(it, child, family)
		}()
	}
	followers.Wait()
}
