//! Zip archives from strangers.

use std::io::{Cursor, Write};
use std::path::PathBuf;

use fulmar::client::http::archive::{ArchiveError, Limits, unpack};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::Folder;

fn archive(fill: impl FnOnce(&mut ZipWriter<Cursor<Vec<u8>>>)) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    fill(&mut zip);
    zip.finish().expect("an archive").into_inner()
}

fn file(zip: &mut ZipWriter<Cursor<Vec<u8>>>, name: &str, bytes: &[u8]) {
    zip.start_file(name, SimpleFileOptions::default()).expect("an entry");
    zip.write_all(bytes).expect("in memory");
}

/// Unpacks `bytes` in a folder of its own, where nothing but the archive may be left if it fails.
fn try_unpack(bytes: &[u8], limits: &Limits) -> Result<Vec<(String, Vec<u8>)>, ArchiveError> {
    let folder = Folder::new();
    folder.write("a.zip", bytes);
    let outside: PathBuf = folder.path().join("out");
    match unpack(folder.path().join("a.zip"), &outside, limits) {
        Ok(paths) => {
            assert_eq!(folder.names(), ["a.zip", "out"]);
            let name = |path: &PathBuf| path.strip_prefix(&outside).expect("inside").to_string_lossy().into_owned();
            Ok(paths.iter().map(|path| (name(path), std::fs::read(path).expect("a file"))).collect())
        }
        Err(error) => {
            assert_eq!(folder.names(), ["a.zip"], "something is left after: {error}");
            Err(error)
        }
    }
}

/// `bytes` with each `from` replaced by a `to` of the same length.
fn patched(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut bytes = bytes.to_vec();
    let mut count = 0;
    for at in 0..bytes.len() - from.len() {
        if bytes[at..].starts_with(from) {
            bytes[at..at + to.len()].copy_from_slice(to);
            count += 1;
        }
    }
    assert!(count > 0, "nothing was patched");
    bytes
}

#[test]
fn files_and_folders_come_out_whole() {
    let bytes = archive(|zip| {
        file(zip, "data-layer-07_12_2021T00_00_00.tiff", b"tiff");
        zip.add_directory("deep/", SimpleFileOptions::default()).expect("an entry");
        file(zip, "deep/er/output.info", &vec![7; 200_000]);
        file(zip, "empty", b"");
    });
    let files = try_unpack(&bytes, &Limits::default()).expect("sound");
    let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["data-layer-07_12_2021T00_00_00.tiff", "deep/er/output.info", "empty"]);
    assert_eq!((files[0].1.as_slice(), files[1].1.len()), (&b"tiff"[..], 200_000));
    assert!(try_unpack(&archive(|_| ()), &Limits::default()).expect("an archive of nothing").is_empty());
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    for name in ["../x", "a/../../x", "/etc/x", "a/./b", "a//b", "..", "C:/x", "a\\..\\x", "nul", "a\u{1}b", "a/"] {
        let bytes = archive(|zip| {
            file(zip, "good", b"good");
            // The writer knows better about some names; what it makes of them is then patched back.
            let stand_in = "Q".repeat(name.len());
            file(zip, &stand_in, b"x");
        });
        let bytes = patched(&bytes, "Q".repeat(name.len()).as_bytes(), name.as_bytes());
        match try_unpack(&bytes, &Limits::default()) {
            // A name with a slash at its end is a folder.
            Ok(files) if name == "a/" => assert_eq!(files.len(), 1),
            Err(ArchiveError::Refused { .. }) => {}
            other => panic!("{name:?}: {other:?}"),
        }
    }
}

#[test]
fn links_and_devices_are_refused() {
    let link = archive(|zip| zip.add_symlink("link", "/etc/passwd", SimpleFileOptions::default()).expect("an entry"));
    let error = try_unpack(&link, &Limits::default()).expect_err("a link");
    assert!(matches!(error, ArchiveError::Refused { fault: "is a link or a device", .. }), "{error}");

    let plain = archive(|zip| file(zip, "device", b""));
    let at = plain.windows(4).position(|four| four == b"PK\x01\x02").expect("an index");
    for kind in [0o020_000u32, 0o060_000, 0o010_000, 0o140_000, 0o120_000] {
        let mut bytes = plain.clone();
        bytes[at + 5] = 3; // Made on Unix.
        bytes[at + 38..at + 42].copy_from_slice(&((kind | 0o644) << 16).to_le_bytes());
        let error = try_unpack(&bytes, &Limits::default()).expect_err("a device");
        assert!(matches!(error, ArchiveError::Refused { .. }), "{kind:o}: {error}");
    }
}

#[test]
fn names_that_are_there_twice_are_refused() {
    let two = archive(|zip| {
        file(zip, "name-1", b"one");
        file(zip, "name-2", b"two");
    });
    for (to, what) in [(&b"name-1"[..], "the same"), (b"NAME-1", "in capitals")] {
        let error = try_unpack(&patched(&two, b"name-2", to), &Limits::default()).expect_err(what);
        assert!(matches!(error, ArchiveError::Refused { fault: "is there twice", .. }), "{what}: {error}");
    }
    let clash = archive(|zip| {
        file(zip, "a", b"a file");
        file(zip, "a/b", b"in a folder of its name");
    });
    assert!(try_unpack(&clash, &Limits::default()).is_err());
}

#[test]
fn bombs_end_at_the_limit_whatever_their_headers_say() {
    let bomb = archive(|zip| {
        zip.start_file("bomb", SimpleFileOptions::default()).expect("an entry");
        for _ in 0..80 {
            zip.write_all(&vec![0; 1 << 20]).expect("in memory");
        }
    });
    assert!(bomb.len() < 1 << 20);
    let tight = Limits { bytes: 1 << 20, ..Limits::default() };
    let error = try_unpack(&bomb, &tight).expect_err("too many bytes");
    assert!(matches!(error, ArchiveError::TooLarge { .. }), "{error}");
    let error = try_unpack(&bomb, &Limits::default()).expect_err("a ratio of a thousand");
    assert!(matches!(error, ArchiveError::TooLarge { .. }), "{error}");

    // It says that it is small.
    let size = (80u32 << 20).to_le_bytes();
    let liar = patched(&bomb, &size, &7u32.to_le_bytes());
    assert!(try_unpack(&liar, &tight).is_err());

    let many = archive(|zip| (0..11).for_each(|number| file(zip, &number.to_string(), b"")));
    let error = try_unpack(&many, &Limits { entries: 10, ..Limits::default() }).expect_err("too many");
    assert!(matches!(error, ArchiveError::TooLarge { .. }), "{error}");
}

#[test]
fn damaged_and_truncated_archives_are_refused_and_never_panic() {
    let bytes = archive(|zip| {
        file(zip, "a", &vec![1; 5_000]);
        file(zip, "b", b"something else");
    });
    for end in 0..bytes.len() {
        let error = try_unpack(&bytes[..end], &Limits::default()).expect_err("truncated");
        assert!(matches!(error, ArchiveError::Damaged { .. } | ArchiveError::Refused { .. }), "{end}: {error}");
    }
    // One flipped byte: refused, or the very same files.
    for at in 0..bytes.len() {
        let mut bytes = bytes.clone();
        bytes[at] ^= 0x55;
        if let Ok(files) = try_unpack(&bytes, &Limits::default()) {
            for (name, bytes) in files {
                assert!(bytes == vec![1; 5_000] || bytes == b"something else" || bytes.is_empty(), "{at}: {name}");
            }
        }
    }
    assert!(try_unpack(b"<html>Log in</html>", &Limits::default()).is_err());
}

#[test]
fn a_folder_that_holds_something_is_left_alone() {
    let folder = Folder::new();
    folder.write("a.zip", &archive(|zip| file(zip, "a", b"a")));
    let (zip, out) = (folder.path().join("a.zip"), folder.path().join("out"));
    std::fs::create_dir(&out).expect("made");
    unpack(&zip, &out, &Limits::default()).expect("an empty folder is as good as none");
    let error = unpack(&zip, &out, &Limits::default()).expect_err("there");
    assert!(matches!(error, ArchiveError::Exists(_)), "{error}");
    let error =
        unpack(folder.path().join("none.zip"), folder.path().join("o"), &Limits::default()).expect_err("no archive");
    assert!(matches!(error, ArchiveError::Io { .. }), "{error}");
    assert_eq!(folder.names(), ["a.zip", "out"]);
}

/// An archive whose index names the same file at the beginning again and again.
fn overlapping(names: &[String]) -> Vec<u8> {
    // Of bytes that can't be packed much smaller.
    let noise: Vec<u8> = (0..10_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let mut bytes = archive(|zip| file(zip, "0", &noise));
    let at = bytes.windows(4).position(|four| four == b"PK\x01\x02").expect("an index");
    let end = bytes.windows(4).position(|four| four == b"PK\x05\x06").expect("an end");
    let (index, mut tail) = (bytes[at..end].to_vec(), bytes[end..].to_vec());
    bytes.truncate(at);
    for name in names {
        let mut entry = index.clone();
        entry[28..30].copy_from_slice(&u16::try_from(name.len()).expect("short").to_le_bytes());
        entry.splice(46..47, name.bytes());
        bytes.extend(entry);
    }
    let count = u16::try_from(names.len()).expect("few").to_le_bytes();
    tail[8..10].copy_from_slice(&count);
    tail[10..12].copy_from_slice(&count);
    tail[12..16].copy_from_slice(&u32::try_from(bytes.len() - at).expect("small").to_le_bytes());
    bytes.extend(tail);
    bytes
}

#[test]
fn entries_that_lie_over_each_other_are_refused() {
    let names = |count: usize| -> Vec<String> { (0..count).map(|number| format!("n{number}")).collect() };
    assert_eq!(try_unpack(&overlapping(&names(1)), &Limits::default()).expect("sound").len(), 1);
    // Never read in full: each could be as long as the archive, and give nothing.
    let outcome = try_unpack(&overlapping(&names(100)), &Limits::default()).map(|files| files.len());
    let error = outcome.expect_err("overlapping");
    assert!(matches!(error, ArchiveError::Refused { fault: "shares its bytes with another", .. }), "{error}");
}

#[test]
fn folders_that_only_stand_in_names_count() {
    let bytes = archive(|zip| (0..3).for_each(|number| file(zip, &format!("{number}/a/b/c/f"), b"")));
    let limits = |entries| Limits { entries, ..Limits::default() };
    let error = try_unpack(&bytes, &limits(14)).expect_err("3 files in 12 folders");
    assert!(matches!(error, ArchiveError::TooLarge { .. }), "{error}");
    assert_eq!(try_unpack(&bytes, &limits(15)).expect("sound").len(), 3);
}

#[cfg(unix)]
#[test]
fn what_a_killed_process_left_beside_the_folder_is_removed() {
    let folder = Folder::new();
    folder.write("a.zip", &archive(|zip| file(zip, "x", b"x")));
    std::fs::create_dir(folder.path().join("out.unpacking-0")).expect("a folder");
    folder.write("out.unpacking-0/half", b"ha");
    unpack(folder.path().join("a.zip"), folder.path().join("out"), &Limits::default()).expect("files");
    assert_eq!(folder.names(), ["a.zip", "out"]);
}
