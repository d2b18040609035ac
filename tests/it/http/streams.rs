//! Bodies of any size, in both directions, without holding them.

use std::io::{Read, Write};

use fulmar::client::http::{Download, HttpError, HttpErrorKind, RateLimit};

use super::server::{Server, Then, head, reply};
use super::{Folder, quick, soon};

fn http_error(error: &std::io::Error) -> &HttpError {
    error.get_ref().and_then(|error| error.downcast_ref()).unwrap_or_else(|| panic!("{error:?}"))
}

#[test]
fn a_reply_is_read_as_it_comes_and_its_connection_kept() {
    let server = Server::start(|seen, stream| {
        reply(stream, 200, &[("Content-Type", "text/csv")], &vec![seen.number as u8; 300_000])
    });
    let client = quick().build().expect("a client");
    for number in 0..3 {
        let mut stream = client.get(&server.url("/")).stream().expect("a reply");
        assert_eq!((stream.status(), stream.length(), stream.length_known()), (200, Some(300_000), true));
        assert_eq!(stream.content_type().as_deref(), Some("text/csv"));
        let (mut count, mut piece) = (0, [0; 1_000]);
        loop {
            match stream.read(&mut piece).expect("read") {
                0 => break,
                read => count += piece[..read].iter().filter(|byte| **byte == number).count(),
            }
        }
        assert_eq!(count, 300_000);
    }
    assert_eq!(server.connections(), 1);
}

#[test]
fn a_reply_that_is_cut_is_an_error_and_no_end() {
    let server = Server::start(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nbegin");
        Then::Close
    });
    let client = quick().build().expect("a client");
    let mut stream = client.get(&server.url("/")).stream().expect("a reply");
    let mut text = Vec::new();
    let error = stream.read_to_end(&mut text).expect_err("cut");
    assert_eq!((http_error(&error).kind(), text.as_slice()), (HttpErrorKind::Broken, &b"begin"[..]));
    assert_eq!(
        stream.read(&mut [0; 9]).map_err(|error| http_error(&error).kind()),
        Err(HttpErrorKind::Broken),
        "and stays one"
    );

    let server = Server::start(|_, stream| reply(stream, 404, &[], b"no"));
    let error = client.get(&server.url("/")).stream().expect_err("refused");
    assert_eq!((error.kind(), error.message()), (HttpErrorKind::Status(404), "no"));
}

#[test]
fn a_stream_holds_its_turn_until_its_end_and_no_longer() {
    let server = Server::of(b"ok");
    let client = quick().rate_limit(RateLimit::none().max_concurrent(1)).build().expect("a client");
    let mut stream = client.get(&server.url("/")).stream().expect("a reply");
    let full = client.get(&server.url("/")).once().send().expect_err("it isn't at its end");
    assert_eq!(full.kind(), HttpErrorKind::RateLimited);
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("read");
    assert_eq!(client.get(&server.url("/")).once().send().expect("a turn").bytes(), text.as_bytes());
    drop(client.get(&server.url("/")).stream().expect("a reply"));
    client.get(&server.url("/")).once().send().expect("a turn that was given up");
}

#[test]
fn a_file_is_sent_as_it_is_and_again_where_it_must_be() {
    let folder = Folder::new();
    let path = folder.path().join("large.tif");
    let bytes: Vec<u8> = (0..300_000u32).flat_map(u32::to_le_bytes).collect();
    std::fs::write(&path, &bytes).expect("written");
    let server = Server::start(|seen, stream| match seen.number {
        0 => Then::Close,
        1 => reply(stream, 307, &[("Location", "/elsewhere")], b""),
        _ => reply(stream, 200, &[], b"thanks"),
    });
    let client = quick().build().expect("a client");
    let put = |path: &std::path::Path| client.put(&server.url("/files/large.tif")).body_file("image/tiff", path).send();
    assert_eq!(put(&path).expect("sent").bytes(), b"thanks");
    let seen = server.seen();
    assert_eq!(
        seen.iter().map(|seen| seen.target.as_str()).collect::<Vec<_>>(),
        ["/files/large.tif", "/files/large.tif", "/elsewhere"]
    );
    assert!(seen.iter().all(|seen| seen.body == bytes && seen.header("content-type") == Some("image/tiff")));

    std::fs::write(&path, b"").expect("written");
    put(&path).expect("an empty one");
    assert_eq!(
        server.seen().last().and_then(|seen| seen.header("content-length").map(str::to_owned)).as_deref(),
        Some("0")
    );
    for wrong in [folder.path().join("none"), folder.path().to_owned()] {
        let error = put(&wrong).expect_err("no file");
        assert!(error.kind() == HttpErrorKind::File && !error.may_have_arrived(), "{error:?}");
    }
    assert_eq!(server.seen().len(), 4);
}

#[test]
fn an_empty_body_needs_no_unpacking_and_a_cut_one_is_still_cut() {
    const GZIP: (&str, &str) = ("Content-Encoding", "gzip");
    const CHUNKED: (&str, &str) = ("Transfer-Encoding", "chunked");
    let server = Server::start(|seen, stream| {
        match seen.target.as_str() {
            "/length" => head(stream, 200, &[GZIP], Some(0)),
            "/none" => head(stream, 204, &[GZIP], None),
            "/cut/length" => head(stream, 200, &[GZIP], Some(5)),
            "/close" => head(stream, 200, &[GZIP], None),
            _ => head(stream, 200, &[GZIP, CHUNKED], None),
        }
        let _ = stream.write_all(if seen.target == "/chunks" { b"0\r\n\r\n" } else { b"" });
        Then::Close
    });
    let client = quick().retry(soon(1)).build().expect("a client");
    let folder = Folder::new();
    for target in ["/length", "/none", "/chunks", "/close"] {
        let get = || client.get(&server.url(target));
        assert_eq!(get().send().expect("a reply").bytes(), b"", "{target}");
        let mut stream = get().stream().expect("a reply");
        for _ in 0..2 {
            let count = stream.read(&mut [0; 9]).unwrap_or_else(|error| panic!("{target}: {error:?}"));
            assert_eq!(count, 0, "{target}");
        }
        if target != "/none" {
            let file = get().download(&Download::new(folder.path(), "empty")).expect("a file");
            assert_eq!((file.bytes, folder.read("empty").len()), (0, 0), "{target}");
        }
    }
    for target in ["/cut/length", "/cut/chunks"] {
        let get = || client.get(&server.url(target));
        let mut stream = get().stream().expect("a reply");
        for _ in 0..2 {
            let error = stream.read(&mut [0; 9]).expect_err("cut");
            assert_eq!(http_error(&error).kind(), HttpErrorKind::Broken, "{target}: {error:?}");
        }
        let error = get().download(&Download::new(folder.path(), "cut")).expect_err("cut");
        assert_eq!(error.kind(), HttpErrorKind::Broken, "{target}: {error:?}");
    }
    assert_eq!(folder.names(), ["empty"]);
}
