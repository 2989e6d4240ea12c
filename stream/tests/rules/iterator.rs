//! Iterator tokens: golden texts, forgery, age, binding.

use braid_stream::iterator::TokenError;
use braid_stream::limits::ITERATOR_MS_MAX;
use braid_stream::{IteratorToken, Offset, Position, ShardId, StreamId};
use proptest::prelude::*;

const KEY: [u8; 32] = [9; 32];
const ISSUED_MS: u64 = 1_700_000_000_000;

fn token(position: Position) -> IteratorToken {
    IteratorToken { shard: ShardId { stream: StreamId(7), index: 12 }, position, issued_ms: ISSUED_MS }
}

#[test]
fn golden() {
    for (position, text) in [
        (Position::Offset(Offset(42)), "AQEHAAAADAAAACoAAAAAAAAAAGjlz4sBAACyU2MgoHhavvp6Gew4BPx6"),
        (Position::Time(1_699_999_999_000), "AQIHAAAADAAAABhk5c-LAQAAAGjlz4sBAACDTZgj-xL8wi5xh7GxAub6"),
    ] {
        let token = token(position);
        assert_eq!(token.encode(&KEY), text);
        assert_eq!(IteratorToken::decode(text, &KEY, ISSUED_MS), Ok(token));
    }
}

#[test]
fn tokens_live_five_minutes() {
    let token = token(Position::Offset(Offset(42)));
    let text = token.encode(&KEY);
    let decode = |now_ms| IteratorToken::decode(&text, &KEY, now_ms);
    assert_eq!(decode(ISSUED_MS + ITERATOR_MS_MAX), Ok(token));
    let age_ms = ITERATOR_MS_MAX + 1;
    let expired = Err(TokenError::Expired { age_ms });
    assert_eq!(decode(ISSUED_MS + age_ms), expired);
    assert_eq!(decode(ISSUED_MS - 60_000), Ok(token), "another node's clock");
}

#[test]
fn a_token_dies_with_its_stream() {
    let token = token(Position::Offset(Offset(42)));
    assert_eq!(token.must_be_of(StreamId(7)), Ok(()));
    let (recreated, index) = (StreamId(8), 12);
    let wrong = Err(TokenError::WrongStream { token: StreamId(7), stream: recreated });
    assert_eq!(token.must_be_of(recreated), wrong);
    let same_name = ShardId { stream: recreated, index };
    assert_eq!(token.must_be_for(same_name), wrong);
    let shard = ShardId { stream: StreamId(7), index: 13 };
    let wrong = TokenError::WrongShard { token: token.shard, shard };
    assert_eq!(token.must_be_for(shard), Err(wrong));
    assert_eq!(token.must_be_for(token.shard), Ok(()));
}

proptest! {
    #[test]
    fn round_trip(
        stream in any::<u32>(), index in any::<u32>(), at in any::<u64>(), timed in any::<bool>(),
        issued_ms in any::<u64>(), key in any::<[u8; 32]>(),
    ) {
        let position = if timed { Position::Time(at) } else { Position::Offset(Offset(at)) };
        let shard = ShardId { stream: StreamId(stream), index };
        let token = IteratorToken { shard, position, issued_ms };
        let text = token.encode(&key);
        prop_assert!(text.len() <= 512);
        prop_assert_eq!(IteratorToken::decode(&text, &key, issued_ms), Ok(token));
    }

    #[test]
    fn one_changed_character_is_noticed(at in 0..56usize, with in "[A-Za-z0-9_-]") {
        let text = token(Position::Offset(Offset(42))).encode(&KEY);
        let mut changed = text.clone();
        changed.replace_range(at..at + 1, &with);
        prop_assume!(changed != text);
        prop_assert_eq!(IteratorToken::decode(&changed, &KEY, ISSUED_MS), Err(TokenError::Forged));
    }

    #[test]
    fn another_key_is_noticed(key in any::<[u8; 32]>()) {
        prop_assume!(key != KEY);
        let text = token(Position::Offset(Offset(42))).encode(&KEY);
        prop_assert_eq!(IteratorToken::decode(&text, &key, ISSUED_MS), Err(TokenError::Forged));
    }

    #[test]
    fn arbitrary_text_never_panics(text in "\\PC{0,70}", sized in "[A-Za-z0-9_-]{56}") {
        let _ = IteratorToken::decode(&text, &KEY, 0);
        prop_assert!(IteratorToken::decode(&sized, &KEY, 0).is_err());
    }
}
