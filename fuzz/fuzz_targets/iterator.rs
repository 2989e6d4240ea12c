//! Shard iterators.
#![no_main]

use braid_node::kinesis::decoders;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| decoders::iterator(bytes));
