//! Sequence numbers: layout, order, round trip.

use braid_stream::sequence::SECOND_MAX;
use braid_stream::{Offset, SequenceNumber};
use proptest::prelude::*;

fn number(created_s: u64, shard_index: u32, offset: u64, arrival_s: u64) -> SequenceNumber {
    SequenceNumber { created_s, shard_index, offset: Offset(offset), arrival_s }
}

/// Seconds, indexes and offsets near their edges as well as anywhere.
fn numbers() -> impl Strategy<Value = SequenceNumber> {
    let seconds = || prop_oneof![0..4u64, 0..=SECOND_MAX, Just(SECOND_MAX)];
    let index = prop_oneof![0..40u32, any::<u32>()];
    let offset = prop_oneof![0..4u64, any::<u64>(), Just(u64::MAX)];
    (seconds(), index, offset, seconds())
        .prop_map(|(created, index, offset, arrival)| number(created, index, offset, arrival))
}

#[test]
fn golden() {
    for (number, text) in [
        (number(0, 0, 0, 0), "49039857307708443467467104868809893875799651909875269634"),
        (number(1, 0, 0, 1), "49039857308065255390643594839074465368162025762690433026"),
        (number(1_700_000_000, 18, 42, 1_700_000_123), "49646437577153077907313937652159775746554549277120528674"),
        (
            number(SECOND_MAX, u32::MAX, u64::MAX, SECOND_MAX),
            "73559785961562665201200657303213636610246346105283411954",
        ),
        // From Amazon's own documentation: the layout is theirs.
        (
            number(1_542_776_258, 6, 0x6764_8a17, 1_545_084_650),
            "49590338271490256608559692538361571095921575989136588898",
        ),
    ] {
        assert_eq!(number.to_string(), text);
        assert_eq!(SequenceNumber::parse(text), Ok(number));
    }
}

#[test]
fn what_is_not_a_sequence_number() {
    let good = "49646437577153077907313937652159775746554549277120528674";
    // One more (2^144) in the digit before the offset.
    let shard_digits_disagree = "49646437577175378652512468275301311464827197638626509090";
    for text in [
        "",
        "0",
        &good[1..],
        &format!("{good}0"),
        &good.replace("4", "x"),
        &format!("+{}", &good[1..]),
        &"9".repeat(56),
        &"0".repeat(56),
        "49646437577153077907313937652159775746554549277120528675",
        shard_digits_disagree,
    ] {
        let error = SequenceNumber::parse(text).unwrap_err();
        assert!(error.to_string().contains("is not a sequence number"));
    }
}

proptest! {
    #[test]
    fn round_trip(number in numbers()) {
        let text = number.to_string();
        prop_assert_eq!(text.len(), 56);
        prop_assert_eq!(SequenceNumber::parse(&text), Ok(number));
    }

    #[test]
    fn order_of_text_is_order_of_numbers(a in numbers(), b in numbers()) {
        prop_assert_eq!(a.cmp(&b), a.to_string().cmp(&b.to_string()));
        prop_assert_eq!(a == b, a.cmp(&b).is_eq());
    }

    #[test]
    fn within_a_shard_by_offset(a in numbers(), offset in any::<u64>(), arrival_s in 0..=SECOND_MAX) {
        let b = SequenceNumber { offset: Offset(offset), arrival_s, ..a };
        prop_assume!(a.offset != b.offset);
        prop_assert_eq!(a.offset.cmp(&b.offset), a.to_string().cmp(&b.to_string()));
    }

    #[test]
    fn children_after_parents(a in numbers(), b in numbers()) {
        prop_assume!(a.created_s != b.created_s);
        let (parent, child) = if a.created_s < b.created_s { (a, b) } else { (b, a) };
        prop_assert!(parent < child);
        prop_assert!(parent.to_string() < child.to_string());
    }

    #[test]
    fn arbitrary_text_never_panics(text in ".{0,80}", digits in "[0-9]{56}") {
        let _ = SequenceNumber::parse(&text);
        if let Ok(number) = SequenceNumber::parse(&digits) {
            prop_assert_eq!(number.to_string(), digits);
        }
    }
}
