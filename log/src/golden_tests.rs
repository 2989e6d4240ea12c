//! The formats, byte for byte. `golden/formats.txt` was computed by a second implementation; if this test fails, the
//! program can't read what it wrote yesterday: raise the version instead of editing the file.

use bytes::Bytes;

use crate::checkpoint;
use crate::entry::{Entry, EntryKind};
use crate::frame::{FrameHeader, HEADER, salt_at};
use crate::id::{LogId, Position, SegmentSeq, Vote};
use crate::segment::tests::example;
use crate::segment::{Control, SegmentHeader};

const GOLDEN: &str = include_str!("../golden/formats.txt");
const AT: u64 = 4096;

fn golden(name: &str) -> &'static str {
    let line = GOLDEN.lines().find_map(|l| l.split_once(' ').filter(|(n, _)| *n == name));
    line.unwrap_or_else(|| panic!("{name} is in the golden file")).1
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn unhex(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
}

#[test]
fn entries() {
    let entry = Entry::new(LogId::new(3, 7), EntryKind::Normal, Bytes::from_static(b"hello"));
    assert_eq!(hex(&[&entry.wire_header()[..], entry.payload()].concat()), golden("wire_entry"));
    assert_eq!(Entry::decode_wire(&mut unhex(golden("wire_entry")).into()), Ok(entry.clone()));
    let disk = entry.frame_header().encode(salt_at(example().salt, AT));
    assert_eq!(hex(&[&disk[..], b"hello\0\0\0"].concat()), golden("disk_entry_at_4096"));
}

#[test]
fn control_frames() {
    let id = LogId::new(5, 6);
    let synced = Position { seq: SegmentSeq(3), offset: 8192 };
    for (name, control) in [
        ("vote_at_4096", Control::Vote(Vote { term: 9, node: 2, committed: true })),
        ("mark_at_4096", Control::Mark { committed: Some(id), synced }),
        ("truncate_at_4096", Control::Truncate { kept: Some(id) }),
        ("truncate_to_nothing_at_4096", Control::Truncate { kept: None }),
        ("purge_at_4096", Control::Purge { upto: id }),
        ("seal_at_4096", Control::Seal { next: SegmentSeq(4) }),
    ] {
        let mut bytes = Vec::new();
        control.encode_to(example().salt, AT, &mut bytes);
        assert_eq!(hex(&bytes), golden(name), "{name}");
        let bytes = unhex(golden(name));
        let header = FrameHeader::decode(&bytes, salt_at(example().salt, AT)).unwrap();
        assert_eq!(Control::of(&header, &bytes[HEADER..]), Some(control), "{name}");
    }
}

#[test]
fn files() {
    assert_eq!(hex(&example().encode()), golden("segment_header"));
    assert_eq!(SegmentHeader::decode(&unhex(golden("segment_header"))), Ok(example()));
    let identity = example().identity;
    let last = LogId::new(2, 9);
    let written = checkpoint::encode(identity, last, Bytes::from_static(b"state")).concat();
    assert_eq!(hex(&written), golden("checkpoint"));
    let read = checkpoint::decode(identity, &unhex(golden("checkpoint")).into());
    assert_eq!(read, Ok((last, Bytes::from_static(b"state"))));
}
