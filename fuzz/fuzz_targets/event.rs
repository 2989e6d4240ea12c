//! Frames of an event stream, written and read back.
#![no_main]

use braid_node::kinesis::decoders;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| decoders::event(bytes));
