//! Files that arrive whole, or not under their name.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use fulmar::client::http::{Download, Existing, HttpErrorKind, RateLimit, Timeouts};
use sha2::{Digest, Sha256};

use super::server::{Seen, Server, Then, head, reply};
use super::{Folder, client, quick, soon};
use crate::support::Gate;

/// Bytes that tell where they stand.
fn data(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 + at / 251) as u8).collect()
}

const SIZE: usize = 300_000;
const TAG: (&str, &str) = ("ETag", "\"v1\"");

/// Where a request wants to begin.
fn asked(seen: &Seen) -> Option<usize> {
    seen.header("range").map(|range| {
        range.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap_or_else(|_| panic!("{range}"))
    })
}

/// The first so many bytes of a reply that promised more.
fn cut(stream: &mut TcpStream, headers: &[(&str, &str)], whole: &[u8], at: usize) -> Then {
    head(stream, 200, headers, Some(whole.len()));
    let _ = stream.write_all(&whole[..at]);
    Then::Close
}

fn partial(stream: &mut TcpStream, from: usize, whole: &[u8], headers: &[(&str, &str)]) -> Then {
    let range = format!("bytes {from}-{}/{}", whole.len() - 1, whole.len());
    let mut all = vec![("Content-Range", range.as_str())];
    all.extend(headers);
    reply(stream, 206, &all, &whole[from..])
}

#[test]
fn a_whole_file_arrives_with_its_progress() {
    let folder = Folder::new();
    let server = Server::start(|_, stream| {
        let headers = [("Content-Type", "application/zip"), ("Content-Disposition", "attachment; filename=r.zip")];
        reply(stream, 200, &headers, &data(SIZE))
    });
    let seen = std::cell::RefCell::new(Vec::new());
    let deep = folder.path().join("a/b");
    let download = Download::new(&deep, "x.zip")
        .length(SIZE as u64)
        .sha256(Sha256::digest(data(SIZE)).into())
        .accept_types(&["application/*"])
        .progress(|done, total| seen.borrow_mut().push((done, total)));
    let file = client().get(&server.url("/")).download(&download).expect("a file");
    assert_eq!(file.path, deep.join("x.zip"));
    assert_eq!((file.bytes, file.resumed, file.kept), (SIZE as u64, false, false));
    assert_eq!((file.content_type.as_deref(), file.file_name.as_deref()), (Some("application/zip"), Some("r.zip")));
    assert_eq!(std::fs::read(&file.path).expect("the file"), data(SIZE));
    assert_eq!(std::fs::read_dir(&deep).expect("the folder").count(), 1, "something else is left");
    let seen = seen.borrow();
    assert!(seen.windows(2).all(|two| two[0].0 <= two[1].0), "{seen:?}");
    assert_eq!((seen.first(), seen.last()), (Some(&(0, Some(SIZE as u64))), Some(&(SIZE as u64, Some(SIZE as u64)))));
    assert_eq!(server.seen()[0].header("accept-encoding"), Some("identity"));
}

#[test]
fn an_empty_file_and_one_without_a_length_arrive_too() {
    let folder = Folder::new();
    let server = Server::start(|seen, stream| match seen.target.as_str() {
        "/empty" => reply(stream, 200, &[], b""),
        _ => {
            head(stream, 200, &[("Transfer-Encoding", "chunked")], None);
            let _ = stream.write_all(b"3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n");
            Then::Keep
        }
    });
    client().get(&server.url("/empty")).download(&Download::new(folder.path(), "a")).expect("a file");
    client().get(&server.url("/chunks")).download(&Download::new(folder.path(), "b")).expect("a file");
    assert_eq!((folder.read("a"), folder.read("b")), (b"".to_vec(), b"abcdefg".to_vec()));
    assert_eq!(folder.names(), ["a", "b"]);
}

#[test]
fn a_cut_is_resumed_by_a_true_206() {
    let folder = Folder::new();
    let server = Server::start(|seen, stream| match asked(seen) {
        None => cut(stream, &[TAG], &data(SIZE), 100_000),
        Some(from) => {
            assert_eq!(seen.header("if-range"), Some("\"v1\""));
            partial(stream, from, &data(SIZE), &[TAG])
        }
    });
    let download = Download::new(folder.path(), "x").sha256(Sha256::digest(data(SIZE)).into());
    let file = client().get(&server.url("/")).download(&download).expect("a file");
    assert!(file.resumed);
    assert_eq!(folder.read("x"), data(SIZE));
    assert_eq!(folder.names(), ["x"]);
    let seen = server.seen();
    assert_eq!(seen.len(), 2);
    assert_eq!(asked(&seen[1]), Some(100_000), "not all that came was used");
}

#[test]
fn a_cut_is_resumed_in_a_later_call_too_even_with_another_signature_in_the_url() {
    for checked in [false, true] {
        let folder = Folder::new();
        let server = Server::start(|seen, stream| match asked(seen) {
            None => cut(
                stream,
                &[("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT"), ("Date", "Sun, 06 Nov 1994 09:00:00 GMT")],
                &data(SIZE),
                70_000,
            ),
            Some(from) => {
                assert_eq!(seen.header("if-range"), Some("Sun, 06 Nov 1994 08:49:37 GMT"));
                partial(stream, from, &data(SIZE), &[])
            }
        });
        let download = || {
            let download = Download::new(folder.path(), "x");
            if checked { download.sha256(Sha256::digest(data(SIZE)).into()) } else { download }
        };
        let error = client().get(&server.url("/f?sig=1")).once().download(&download()).expect_err("cut");
        assert!(error.is_retryable(), "{error:?}");
        assert_eq!(folder.names(), ["x.part", "x.part.resume"], "what is documented to be left");
        assert_eq!(folder.read("x.part"), data(SIZE)[..70_000]);
        let file = client().get(&server.url("/f?sig=2")).once().download(&download()).expect("the rest");
        assert!(file.resumed);
        assert_eq!((folder.read("x"), folder.names()), (data(SIZE), vec!["x".to_owned()]));
    }
}

#[test]
fn what_is_left_of_another_file_or_makes_no_sense_is_started_over() {
    let folder = Folder::new();
    let server = Server::start(|seen, stream| match asked(seen) {
        None if seen.target == "/cut" => cut(stream, &[TAG], &data(SIZE), 70_000),
        None => reply(stream, 200, &[], b"another"),
        Some(_) => panic!("asked for the rest of another file"),
    });
    client().get(&server.url("/cut")).once().download(&Download::new(folder.path(), "x")).expect_err("cut");
    client().get(&server.url("/other")).once().download(&Download::new(folder.path(), "x")).expect("whole");
    assert_eq!((folder.read("x"), folder.names()), (b"another".to_vec(), vec!["x".to_owned()]));

    for state in [&b""[..], b"{", b"{\"length\": -1}", b"null"] {
        folder.write("y.part", b"rubbish");
        folder.write("y.part.resume", state);
        client().get(&server.url("/other")).download(&Download::new(folder.path(), "y")).expect("whole");
        assert_eq!((folder.read("y"), folder.names()), (b"another".to_vec(), vec!["x".to_owned(), "y".to_owned()]));
    }
}

#[test]
fn whatever_is_not_exactly_the_rest_starts_over() {
    type Answer = fn(&mut TcpStream, usize) -> Then;
    let answers: [(&str, Answer); 8] = [
        ("a server that ignores ranges", |stream, _| reply(stream, 200, &[TAG], &data(SIZE))),
        ("a range that begins elsewhere", |stream, from| partial(stream, from - 1, &data(SIZE), &[TAG])),
        ("another total", |stream, from| {
            let range = format!("bytes {from}-{SIZE}/{}", SIZE + 1);
            reply(stream, 206, &[("Content-Range", &range), TAG], &data(SIZE + 1)[from..])
        }),
        ("another tag", |stream, from| partial(stream, from, &data(SIZE), &[("ETag", "\"v2\"")])),
        ("no range", |stream, from| reply(stream, 206, &[TAG], &data(SIZE)[from..])),
        ("a range that makes no sense", |stream, from| {
            reply(stream, 206, &[("Content-Range", "bytes 99-5/7"), TAG], &data(SIZE)[from..])
        }),
        ("another length than the range", |stream, from| {
            let range = format!("bytes {from}-{}/{SIZE}", SIZE - 1);
            reply(stream, 206, &[("Content-Range", &range), TAG], b"short")
        }),
        ("416", |stream, _| reply(stream, 416, &[], b"")),
    ];
    for (what, answer) in answers {
        let folder = Folder::new();
        folder.write("x", b"what was there before");
        let server = Server::start(move |seen, stream| match (seen.number, asked(seen)) {
            (0, _) => cut(stream, &[TAG], &data(SIZE), 100_000),
            (_, Some(from)) => answer(stream, from),
            (_, None) => reply(stream, 200, &[TAG], &data(SIZE)),
        });
        let file = client().get(&server.url("/")).download(&Download::new(folder.path(), "x"));
        let file = file.unwrap_or_else(|error| panic!("{what}: {error:?}"));
        assert!(!file.resumed, "{what}");
        assert!(folder.read("x") == data(SIZE), "{what}: a damaged file");
        assert_eq!(folder.names(), ["x"], "{what}");
        assert!(server.seen().len() <= 3, "{what}: {}", server.seen().len());
    }
}

#[test]
fn the_rest_of_a_version_of_another_date_starts_over() {
    let folder = Folder::new();
    let newer = || data(SIZE).into_iter().map(|byte| byte.wrapping_add(1)).collect::<Vec<u8>>();
    let server = Server::start(move |seen, stream| {
        let modified = |at| [("Last-Modified", at), ("Date", "Sun, 06 Nov 1994 09:00:00 GMT")];
        let (then, now) = (modified("Sun, 06 Nov 1994 08:49:37 GMT"), modified("Sun, 06 Nov 1994 08:55:00 GMT"));
        match (seen.number, asked(seen)) {
            (0, _) => cut(stream, &then, &data(SIZE), 100_000),
            // It ignores `If-Range`.
            (_, Some(from)) => partial(stream, from, &newer(), &now),
            (_, None) => reply(stream, 200, &now, &newer()),
        }
    });
    let file = client().get(&server.url("/")).download(&Download::new(folder.path(), "x")).expect("a file");
    assert!(folder.read("x") == newer(), "a mix of two versions");
    assert!(!file.resumed);
}

#[test]
fn without_a_validator_a_cut_starts_over_and_leaves_nothing() {
    let weak: [&[(&str, &str)]; 4] = [
        &[],
        &[("ETag", "W/\"weak\"")],
        &[("ETag", "\"x\""), ("Accept-Ranges", "none")],
        &[("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT"), ("Date", "Sun, 06 Nov 1994 08:49:37 GMT")],
    ];
    for headers in weak {
        let folder = Folder::new();
        let server = Server::start(move |seen, stream| {
            assert_eq!(asked(seen), None, "{headers:?}");
            match seen.number {
                0 | 2 => cut(stream, headers, &data(SIZE), 100_000),
                _ => reply(stream, 200, headers, &data(SIZE)),
            }
        });
        client().get(&server.url("/")).download(&Download::new(folder.path(), "x")).expect("a file");
        assert!(folder.read("x") == data(SIZE));
        client().get(&server.url("/")).once().download(&Download::new(folder.path(), "y")).expect_err("cut");
        assert_eq!(folder.names(), ["x"], "{headers:?}");
    }
}

#[test]
fn many_cuts_that_get_on_are_no_failure() {
    let folder = Folder::new();
    let size = 3 << 20;
    let server = Server::start(move |seen, stream| {
        let (whole, from) = (data(size), asked(seen).unwrap_or(0));
        let to = (from + 200_000).min(size);
        let range = format!("bytes {from}-{}/{size}", size - 1);
        let headers = [TAG, ("Content-Range", range.as_str())];
        head(stream, if from == 0 { 200 } else { 206 }, &headers[..1 + usize::from(from > 0)], Some(size - from));
        let _ = stream.write_all(&whole[from..to]);
        Then::Close
    });
    let client = quick().retry(soon(2)).build().expect("sound settings");
    let file = client.get(&server.url("/")).download(&Download::new(folder.path(), "x")).expect("a file");
    assert!(file.resumed && folder.read("x") == data(size));
    assert!(server.seen().len() > 10);
}

#[test]
fn what_is_not_the_data_never_gets_the_name() {
    let whole = data(1000);
    type Case = (&'static str, HttpErrorKind, fn(&mut TcpStream) -> Then);
    let cases: [Case; 9] = [
        ("a page by its type", HttpErrorKind::Content, |s| {
            reply(s, 200, &[("Content-Type", "Text/HTML; charset=x")], b"Log in")
        }),
        ("a page by its look", HttpErrorKind::Content, |s| {
            reply(s, 200, &[("Content-Type", "application/zip")], b"\xef\xbb\xbf \n<!DOCTYPE HTML><p>Log in")
        }),
        ("another length", HttpErrorKind::Content, |s| reply(s, 200, &[], &data(999))),
        ("a longer one, unannounced", HttpErrorKind::Content, |s| {
            head(s, 200, &[], None);
            let _ = s.write_all(&data(1001));
            Then::Close
        }),
        ("a shorter one, unannounced", HttpErrorKind::Content, |s| {
            head(s, 200, &[], None);
            let _ = s.write_all(&data(999));
            Then::Close
        }),
        ("another checksum", HttpErrorKind::Content, |s| reply(s, 200, &[], &[7; 1000])),
        ("nothing", HttpErrorKind::Content, |s| reply(s, 204, &[], b"")),
        ("a part that nobody asked for", HttpErrorKind::Content, |s| partial(s, 0, &data(1000), &[])),
        ("an error", HttpErrorKind::Status(404), |s| {
            reply(s, 404, &[("Content-Type", "application/zip")], &data(1000))
        }),
    ];
    for (what, kind, answer) in cases {
        let folder = Folder::new();
        folder.write("x", b"what was there before");
        let server = Server::start(move |_, stream| answer(stream));
        let download = Download::new(folder.path(), "x").length(1000).sha256(Sha256::digest(&whole).into());
        let error = client().get(&server.url("/")).download(&download).expect_err(what);
        assert_eq!(error.kind(), kind, "{what}: {error:?}");
        assert_eq!(folder.read("x"), b"what was there before", "{what}");
        assert_eq!(folder.names(), ["x"], "{what}");
    }
}

#[test]
fn more_than_is_allowed_is_refused_before_and_while_it_comes() {
    let server = Server::start(|seen, stream| match seen.target.as_str() {
        "/told" => reply(stream, 200, &[], &data(1001)),
        "/huge" => {
            head(stream, 200, &[("Content-Length", "18446744073709551615")], None);
            Then::Close
        }
        _ => {
            head(stream, 200, &[], None);
            while stream.write_all(&data(1000)).is_ok() {}
            Then::Close
        }
    });
    for path in ["/told", "/huge", "/endless"] {
        let folder = Folder::new();
        let error = client()
            .get(&server.url(path))
            .download(&Download::new(folder.path(), "x").max_bytes(1000))
            .expect_err("large");
        assert_eq!((error.kind(), error.attempts()), (HttpErrorKind::TooLarge, 1), "{path}: {error:?}");
        assert_eq!(folder.names(), [""; 0], "{path}");
    }
}

#[test]
fn html_and_any_type_are_taken_if_asked_for() {
    let folder = Folder::new();
    let server = Server::start(|_, s| reply(s, 200, &[("Content-Type", "text/html")], b"<html>report</html>"));
    let download = Download::new(folder.path(), "x.html").accept_types(&["text/html"]);
    client().get(&server.url("/")).download(&download).expect("wanted");
    let error = client().get(&server.url("/")).download(&Download::new(folder.path(), "x").accept_types(&["image/*"]));
    assert_eq!(error.expect_err("not an image").kind(), HttpErrorKind::Content);
}

#[test]
fn names_that_are_no_plain_names_are_refused_before_anything_is_asked() {
    let folder = Folder::new();
    let server = Server::of(b"x");
    let below = folder.path().join("below");
    for name in
        ["", ".", "..", "../x", "a/b", "a\\b", "/etc/x", "C:x", "a\0b", "nul", "COM1.txt", "a\nb", "x.part", "x."]
    {
        let download = Download::new(&below, name);
        let error = client().get(&server.url("/")).download(&download).expect_err(name);
        assert_eq!(error.kind(), HttpErrorKind::Invalid, "{name:?}");
        assert!(download.discard().is_err() && download.path().is_err(), "{name:?}");
    }
    assert!(server.seen().is_empty());
    assert_eq!(folder.names(), [""; 0]);
}

#[test]
fn a_file_that_is_there_is_replaced_kept_or_refused() {
    let folder = Folder::new();
    let server = Server::of(b"new");
    let get = |existing| client().get(&server.url("/")).download(&Download::new(folder.path(), "x").existing(existing));
    folder.write("x", b"old");
    assert_eq!(get(Existing::Refuse).expect_err("there").kind(), HttpErrorKind::File);
    let kept = get(Existing::Keep).expect("kept");
    assert_eq!((kept.kept, kept.bytes, server.seen().len()), (true, 3, 0));
    assert_eq!(folder.read("x"), b"old");
    // Not what is expected: replaced.
    let other = Download::new(folder.path(), "x").existing(Existing::Keep).sha256(Sha256::digest(b"new").into());
    assert!(!client().get(&server.url("/")).download(&other).expect("another checksum").kept);
    assert_eq!(folder.read("x"), b"new");
    folder.write("x", b"old");
    assert!(!get(Existing::Replace).expect("replaced").kept);
    assert_eq!(folder.read("x"), b"new");
    std::fs::remove_file(folder.path().join("x")).expect("there");
    get(Existing::Refuse).expect("not there");
    std::fs::create_dir(folder.path().join("y")).expect("made");
    let error = client().get(&server.url("/")).download(&Download::new(folder.path(), "y")).expect_err("a folder");
    assert_eq!(error.kind(), HttpErrorKind::File);
}

#[test]
fn a_file_that_comes_up_meanwhile_is_not_replaced_if_that_is_refused() {
    let folder = Folder::new();
    let path = folder.path().join("x");
    let server = Server::start(move |_, stream| {
        std::fs::write(&path, b"somebody else's").expect("written");
        reply(stream, 200, &[], b"ours")
    });
    let download = Download::new(folder.path(), "x").existing(Existing::Refuse);
    let error = client().get(&server.url("/")).download(&download).expect_err("there by now");
    assert_eq!(error.kind(), HttpErrorKind::File);
    assert_eq!((folder.read("x"), folder.names()), (b"somebody else's".to_vec(), vec!["x".to_owned()]));
}

#[test]
fn a_folder_that_can_not_be_written_says_so() {
    let folder = Folder::new();
    folder.write("file", b"");
    let server = Server::of(b"x");
    // A file where the folder should be: nobody, not even root, can put files there.
    let error = client()
        .get(&server.url("/"))
        .download(&Download::new(folder.path().join("file"), "x"))
        .expect_err("no folder");
    assert_eq!(error.kind(), HttpErrorKind::File);
    assert!(error.to_string().contains("file"), "{error}");
    assert!(server.seen().is_empty(), "asked for what can't be kept");
}

#[cfg(unix)]
#[test]
fn nothing_is_written_through_a_link_that_somebody_laid() {
    let folder = Folder::new();
    folder.write("precious", b"precious");
    std::os::unix::fs::symlink(folder.path().join("precious"), folder.path().join("x.part")).expect("linked");
    let server = Server::of(b"new");
    let error = client().get(&server.url("/")).download(&Download::new(folder.path(), "x")).expect_err("a link");
    assert_eq!(error.kind(), HttpErrorKind::File);
    assert_eq!(folder.read("precious"), b"precious");
}

#[test]
fn of_two_downloads_to_one_name_one_goes_on_and_the_other_is_told() {
    let folder = Folder::new();
    let gate = Gate::new();
    let hold = gate.clone();
    let server = Server::start(move |_, stream| {
        head(stream, 200, &[TAG], Some(SIZE));
        let _ = stream.write_all(&data(SIZE)[..1000]);
        hold.pass();
        let _ = stream.write_all(&data(SIZE)[1000..]);
        Then::Keep
    });
    let (folder, server) = (&folder, &server);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| client().get(&server.url("/")).download(&Download::new(folder.path(), "x")));
        gate.await_arrivals(1);
        let download = Download::new(folder.path(), "x");
        let error = client().get(&server.url("/")).download(&download).expect_err("busy");
        assert_eq!(error.kind(), HttpErrorKind::Busy, "{error:?}");
        assert!(error.is_retryable());
        assert!(download.discard().is_err(), "it isn't taken away from under the other");
        gate.open();
        first.join().expect("no panic").expect("undisturbed");
    });
    assert!(folder.read("x") == data(SIZE));
    assert_eq!(folder.names(), ["x"]);
}

#[test]
fn many_downloads_to_one_name_leave_one_whole_file() {
    let folder = Folder::new();
    let server = Server::start(|seen, stream| {
        let from = asked(seen).unwrap_or(0);
        match (seen.number % 3, from) {
            (0, 0) => cut(stream, &[TAG], &data(SIZE), 100_000),
            (_, 0) => reply(stream, 200, &[TAG], &data(SIZE)),
            _ => partial(stream, from, &data(SIZE), &[TAG]),
        }
    });
    let (done, client) = (AtomicU64::new(0), client());
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..10 {
                    match client.get(&server.url("/")).download(&Download::new(folder.path(), "x")) {
                        Ok(_) => drop(done.fetch_add(1, Ordering::Relaxed)),
                        Err(error) => assert_eq!(error.kind(), HttpErrorKind::Busy, "{error:?}"),
                    }
                    if let Ok(bytes) = std::fs::read(folder.path().join("x")) {
                        assert!(bytes == data(SIZE), "a damaged file under the final name");
                    }
                }
            });
        }
    });
    assert!(done.load(Ordering::Relaxed) > 0);
    assert_eq!(folder.names(), ["x"]);
}

#[test]
fn a_cancel_in_the_middle_ends_it_and_keeps_what_can_be_gone_on_with() {
    let folder = Folder::new();
    let server = Server::start(|seen, stream| match asked(seen) {
        None => reply(stream, 200, &[TAG], &data(SIZE)),
        Some(from) => partial(stream, from, &data(SIZE), &[TAG]),
    });
    let stop = Arc::new(AtomicBool::new(false));
    let (set, look) = (stop.clone(), stop.clone());
    let download = Download::new(folder.path(), "x")
        .progress(move |done, _| set.store(done > 0, Ordering::SeqCst))
        .cancelled(move || look.load(Ordering::SeqCst));
    let error = client().get(&server.url("/")).download(&download).expect_err("cancelled");
    assert_eq!(error.kind(), HttpErrorKind::Cancelled);
    assert_eq!(folder.names(), ["x.part", "x.part.resume"]);
    let file = client().get(&server.url("/")).download(&Download::new(folder.path(), "x")).expect("the rest");
    assert!(file.resumed && folder.read("x") == data(SIZE));

    client().get(&server.url("/")).download(&download).expect_err("cancelled before it began");
    assert_eq!(folder.names(), ["x"]);
}

#[test]
fn a_cancel_ends_the_wait_for_the_next_attempt() {
    let folder = Folder::new();
    let server = Server::start(|_, stream| reply(stream, 503, &[("Retry-After", "100")], b""));
    let looks = std::cell::Cell::new(0);
    let download = Download::new(folder.path(), "x").cancelled(|| {
        looks.set(looks.get() + 1);
        looks.get() > 2
    });
    let error = client().get(&server.url("/")).download(&download).expect_err("cancelled");
    assert_eq!(error.kind(), HttpErrorKind::Cancelled);
    assert_eq!(folder.names(), [""; 0]);
}

#[test]
fn discard_removes_what_is_left_and_no_more() {
    let folder = Folder::new();
    let server = Server::start(|_, stream| cut(stream, &[TAG], &data(SIZE), 100_000));
    folder.write("x", b"whole");
    let download = Download::new(folder.path(), "x");
    client().get(&server.url("/")).once().download(&download).expect_err("cut");
    assert_eq!(folder.names(), ["x", "x.part", "x.part.resume"]);
    download.discard().expect("removed");
    download.discard().expect("nothing is there");
    assert_eq!((folder.names(), folder.read("x")), (vec!["x".to_owned()], b"whole".to_vec()));
}

#[test]
fn a_download_that_is_not_ready_is_asked_for_again() {
    let folder = Folder::new();
    let server = Server::start(|seen, stream| match seen.number {
        0 => reply(stream, 404, &[], b"not packaged yet"),
        1 => reply(stream, 202, &[], b""),
        _ => reply(stream, 200, &[], b"data"),
    });
    let request = client().get(&server.url("/")).retry_on(&[404]);
    request.download(&Download::new(folder.path(), "x")).expect("in the end");
    assert_eq!((server.seen().len(), folder.read("x")), (3, b"data".to_vec()));
}

#[test]
fn a_page_that_comes_in_pieces_is_a_page() {
    let folder = Folder::new();
    let server = Server::start(|_, stream| {
        head(stream, 200, &[], Some(6));
        let _ = stream.write_all(b"<");
        // The rest when the client has looked at what came, or is at it.
        std::thread::yield_now();
        let _ = stream.write_all(b"html>");
        Then::Keep
    });
    let error = client().get(&server.url("/")).download(&Download::new(folder.path(), "x")).expect_err("a page");
    assert_eq!((error.kind(), folder.names().len()), (HttpErrorKind::Content, 0), "{error:?}");
}

#[test]
fn a_pattern_of_types_takes_what_it_covers_by_type_and_look() {
    let folder = Folder::new();
    let server = Server::start(|seen, s| reply(s, 200, &[("Content-Type", &seen.target[1..])], b"<html>report</html>"));
    for (kind, accepted) in [
        ("text/html", "text/*"),
        ("text/html", "*/*"),
        ("image/png", "*/*"),
        ("text/html", "Text/HTML; charset=utf-8"),
        ("application/xhtml+xml", "application/xhtml+xml"),
    ] {
        let download = Download::new(folder.path(), "x").accept_types(&[accepted]);
        let file = client().get(&server.url(&format!("/{kind}"))).download(&download);
        file.unwrap_or_else(|error| panic!("{kind} by {accepted}: {error:?}"));
    }
    let download = Download::new(folder.path(), "x").accept_types(&["image/*"]);
    let error = client().get(&server.url("/image/png")).download(&download).expect_err("a page by its look");
    assert_eq!(error.kind(), HttpErrorKind::Content);
}

/// Killed between giving the part its final name and taking away the other, a process leaves both.
#[cfg(unix)]
#[test]
fn a_part_that_is_the_final_file_too_is_never_written_to() {
    let folder = Folder::new();
    folder.write("x", b"whole");
    let link = || std::fs::hard_link(folder.path().join("x"), folder.path().join("x.part")).expect("a link");
    let server = Server::start(|seen, stream| match seen.target.as_str() {
        "/cut" => cut(stream, &[], b"another", 3),
        _ => reply(stream, 200, &[], b"another"),
    });
    link();
    client().get(&server.url("/cut")).once().download(&Download::new(folder.path(), "x")).expect_err("cut");
    assert_eq!((folder.read("x"), folder.names()), (b"whole".to_vec(), vec!["x".to_owned()]));
    link();
    Download::new(folder.path(), "x").discard().expect("nothing in the way");
    assert_eq!((folder.read("x"), folder.names()), (b"whole".to_vec(), vec!["x".to_owned()]));
    link();
    client().get(&server.url("/")).once().download(&Download::new(folder.path(), "x")).expect("whole");
    assert_eq!((folder.read("x"), folder.names()), (b"another".to_vec(), vec!["x".to_owned()]));
}

#[test]
fn another_query_is_another_file_even_with_the_same_tag_and_length() {
    let signed = "X-Amz-Date=1&X-Amz-Signature=1&Expires=1";
    for (first, second, same) in [
        ("id=1", "id=2", false),
        ("key=a", "key=b", false),
        (&format!("id=1&{signed}"), &format!("id=1&{}", signed.replace('1', "2")), true),
        ("id=1&se=1&sig=1", "id=1&se=2&sig=2", true),
        ("id=1&se=1", "id=1&se=2", false),
    ] {
        let folder = Folder::new();
        let server = Server::start(|seen, stream| match (seen.number, asked(seen)) {
            (0, _) => cut(stream, &[TAG], &[1; 1000], 400),
            (_, None) => reply(stream, 200, &[TAG], &[2; 1000]),
            (_, Some(from)) => partial(stream, from, &[2; 1000], &[TAG]),
        });
        let ask = |query| client().get(&server.url(&format!("/f?{query}"))).once();
        ask(first).download(&Download::new(folder.path(), "x")).expect_err("cut");
        let file = ask(second).download(&Download::new(folder.path(), "x")).expect("the rest, or all");
        assert_eq!(file.resumed, same, "{first} and {second}");
        assert_eq!(folder.read("x")[0], if same { 1 } else { 2 }, "{first} and {second}: two files in one");
    }
}

#[test]
fn what_makes_no_sense_in_a_header_is_not_taken_from_a_disk() {
    let folder = Folder::new();
    let server = Server::start(|seen, stream| {
        assert_eq!(asked(seen), None, "{seen:?}");
        cut(stream, &[TAG], &data(SIZE), 70_000)
    });
    client().get(&server.url("/")).once().download(&Download::new(folder.path(), "x")).expect_err("cut");
    let state = String::from_utf8(folder.read("x.part.resume")).expect("text");
    folder.write("x.part.resume", state.replace("\\\"v1\\\"", "v1\\r\\nX: y").as_bytes());
    let error = client().get(&server.url("/")).once().download(&Download::new(folder.path(), "x")).expect_err("cut");
    assert_eq!((error.kind(), server.seen().len()), (HttpErrorKind::Broken, 2), "{error:?}");
}

#[test]
fn a_cancel_ends_the_wait_for_leave_to_ask() {
    let gate = Gate::new();
    let hold = gate.clone();
    let server = Server::start(move |_, stream| {
        hold.pass();
        reply(stream, 200, &[], b"ok")
    });
    let places = quick().rate_limit(RateLimit::none().max_concurrent(1)).build().expect("sound settings");
    let turns = quick().rate_limit(RateLimit::per_second(0.000_001)).build().expect("sound settings");
    std::thread::scope(|scope| {
        let first: Vec<_> =
            [&places, &turns].map(|client| scope.spawn(|| client.get(&server.url("/")).send())).into_iter().collect();
        gate.await_arrivals(2);
        for client in [&places, &turns] {
            let (folder, looks) = (Folder::new(), AtomicU64::new(0));
            // The first look is before the wait.
            let download = Download::new(folder.path(), "x").cancelled(|| looks.fetch_add(1, Ordering::SeqCst) > 0);
            let error = client.get(&server.url("/")).download(&download).expect_err("cancelled");
            assert_eq!((error.kind(), error.attempts()), (HttpErrorKind::Cancelled, 0), "{error:?}");
            assert_eq!(folder.names(), [""; 0]);
        }
        gate.open();
        for first in first {
            first.join().expect("no panic").expect("a reply");
        }
    });
    places.get(&server.url("/")).once().send().expect("the place was given back");
}

#[cfg(unix)]
#[test]
fn a_link_to_nowhere_is_no_file_to_keep() {
    let folder = Folder::new();
    std::os::unix::fs::symlink(folder.path().join("nowhere"), folder.path().join("x")).expect("a link");
    let download = Download::new(folder.path(), "x").existing(Existing::Keep);
    let file = client().get(&Server::of(b"data").url("/")).download(&download).expect("a file");
    assert!(!file.kept && folder.path().join("x").symlink_metadata().expect("there").is_file());
    assert_eq!((folder.read("x"), folder.names()), (b"data".to_vec(), vec!["x".to_owned()]));
}

#[test]
fn what_is_stored_compressed_is_unpacked_and_compared_as_it_is_stored() {
    const TEXT: &[u8] = b"{\"a\": 1, \"b\": [1, 2, 3, 4, 5, 6, 7, 8, 9]}";
    let packed = {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        packed.write_all(TEXT).expect("in memory");
        packed.finish().expect("in memory")
    };
    let (stored, sum) = (packed.len() as u64, <[u8; 32]>::from(Sha256::digest(&packed)));
    let sent = packed.clone();
    let server = Server::start(move |seen, stream| {
        assert_eq!(seen.header("accept-encoding"), Some("identity"));
        reply(stream, 200, &[("Content-Encoding", "gzip"), ("ETag", "\"x\"")], &sent)
    });
    let folder = Folder::new();
    let get = |download: &Download<'_>| client().get(&server.url("/")).download(download);
    let content = TEXT.len() as u64;
    for (name, download) in [
        ("plain.json", Download::new(folder.path(), "plain.json")),
        ("stored.json", Download::new(folder.path(), "stored.json").length(stored).sha256(sum)),
        (
            "content.json",
            Download::new(folder.path(), "content.json").length(content).sha256(Sha256::digest(TEXT).into()),
        ),
    ] {
        let file = get(&download).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!((folder.read(name), file.bytes, file.length_known), (TEXT.to_vec(), content, true), "{name}");
    }
    // Meant to be compressed, which servers say in the same way.
    get(&Download::new(folder.path(), "data.json.gz").length(stored)).expect("as it is");
    assert_eq!(folder.read("data.json.gz"), packed);

    let error = get(&Download::new(folder.path(), "wrong.json").length(stored + 1)).expect_err("neither");
    assert_eq!((error.kind(), error.attempts()), (HttpErrorKind::Content, 1), "{error:?}");
    let error = get(&Download::new(folder.path(), "wrong.json").sha256([7; 32])).expect_err("neither");
    assert_eq!(error.kind(), HttpErrorKind::Content, "{error:?}");
    assert!(!folder.path().join("wrong.json").exists());
}

#[test]
fn a_cancel_ends_the_wait_for_a_server_that_has_fallen_silent() {
    let gate = Gate::new();
    let hold = gate.clone();
    let server = Server::start(move |seen, stream| {
        if seen.target == "/body" {
            head(stream, 200, &[("ETag", "\"x\"")], Some(1 << 20));
            let _ = stream.write_all(&[b'x'; 100_000]);
        }
        hold.pass();
        Then::Close
    });
    let never = Timeouts { connect: None, send: None, first_byte: None, body: None, total: None };
    let client = quick().timeouts(never).build().expect("sound settings");
    let folder = Folder::new();
    for (target, looks) in [("/headers", 3), ("/body", 10)] {
        let asked = AtomicU64::new(0);
        let download = Download::new(folder.path(), "file").cancelled(|| asked.fetch_add(1, Ordering::SeqCst) >= looks);
        let error = client.get(&server.url(target)).download(&download).expect_err("cancelled");
        assert_eq!(error.kind(), HttpErrorKind::Cancelled, "{target}: {error:?}");
    }
    // What had come is kept for another time.
    assert_eq!(folder.names(), ["file.part", "file.part.resume"]);
    gate.open();
}

#[test]
fn what_is_compressed_in_a_way_that_was_not_asked_for_is_not_the_data() {
    let server = Server::start(|seen, stream| {
        let coding = seen.header("x-coding").expect("the test says it");
        reply(stream, 200, &[("Content-Encoding", coding), ("ETag", "\"x\"")], b"packed")
    });
    let get = |coding: &str, name: &str| {
        let folder = Folder::new();
        let request = client().get(&server.url("/")).header("X-Coding", coding);
        let outcome = request.download(&Download::new(folder.path(), name));
        outcome.map(|_| folder.read(name)).map_err(|error| {
            assert_eq!(folder.names(), [""; 0], "something is left");
            (error.kind(), error.attempts())
        })
    };
    for coding in ["br", "zstd", "deflate", "gzip, br"] {
        assert_eq!(get(coding, "x.tif"), Err((HttpErrorKind::Content, 1)), "{coding}");
    }
    // By its name, the file itself is a compressed one.
    for (coding, name) in [("br", "x.js.br"), ("zstd", "x.tar.ZST"), ("zstd", "x.zstd")] {
        assert_eq!(get(coding, name).expect("a file"), b"packed", "{coding}");
    }
    assert_eq!(get("utf-8", "x.tif").expect("a file"), b"packed", "that is no compression");
}
