// What a program expects of its SDK, and how it fails: with whatever is not so.
package main

import (
	"fmt"
	"reflect"
	"time"
)

const bound = 60 * time.Second

func until(what string, condition func() bool) {
	for start := time.Now(); !condition(); time.Sleep(20 * time.Millisecond) {
		if time.Since(start) > bound {
			fail("waited %v until %s", bound, what)
		}
	}
}

func must[T any](found T, err error) T {
	check(err)
	return found
}

func check(err error) {
	if err != nil {
		fail("%v", err)
	}
}

func equal(found, expected any) {
	if !reflect.DeepEqual(found, expected) {
		fail("%v instead of %v", found, expected)
	}
}

func fail(format string, what ...any) {
	panic(fmt.Sprintf(format, what...))
}
