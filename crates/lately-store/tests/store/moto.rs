//! A server that speaks the protocol of S3, on loopback: `pip install 'moto[server]'` into the Python that
//! `LATELY_PYTHON` names.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use lately_store::objects::S3;

/// The key that it takes.
pub(crate) const KEY: &str = "AKIALATELYTEST";

/// One request at a time, as moto compares and writes in two steps.
const PROGRAM: &str = r#"
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server
server = make_server("127.0.0.1", 0, DomainDispatcherApplication(create_backend_app), threaded=False)
print(server.server_port, flush=True)
server.serve_forever()
"#;

/// A running server; it ends when this is dropped.
pub(crate) struct Moto {
    process: Child,
    port: u16,
}

impl Moto {
    /// Starts one with an empty bucket `models`; `None`, which is printed, where it is not installed.
    pub(crate) fn start() -> Option<Self> {
        let python = std::env::var("LATELY_PYTHON").unwrap_or_else(|_| "python3".to_owned());
        let there = Command::new(&python).args(["-c", "import moto.server, werkzeug"]).output();
        if !there.is_ok_and(|o| o.status.success()) {
            println!("skipped: no moto: pip install 'moto[server]' and set LATELY_PYTHON to that Python");
            return None;
        }
        let mut process = Command::new(&python)
            .args(["-c", PROGRAM])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let moto = Self { process, port: line.trim().parse().unwrap() };
        moto.make_bucket("models");
        Some(moto)
    }

    /// The variables by which it is found.
    pub(crate) fn variables(&self) -> [(String, String); 4] {
        let endpoint = format!("http://127.0.0.1:{}", self.port);
        [
            ("AWS_ENDPOINT", endpoint.as_str()),
            ("AWS_ACCESS_KEY_ID", KEY),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            ("AWS_REGION", "us-east-1"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
    }

    /// Its objects.
    pub(crate) fn objects(&self, uri: &str) -> S3 {
        S3::open(uri, self.variables()).unwrap()
    }

    fn make_bucket(&self, name: &str) {
        use std::io::{Read, Write};
        let mut door = std::net::TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let host = format!("127.0.0.1:{}", self.port);
        let signed = format!("AWS4-HMAC-SHA256 Credential={KEY}/20260101/us-east-1/s3/aws4_request");
        write!(
            door,
            "PUT /{name} HTTP/1.1\r\nHost: {host}\r\nAuthorization: {signed}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        door.read_to_string(&mut answer).unwrap();
        assert!(answer.contains(" 200 "), "{answer}");
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}
