//! The control socket: one line of JSON in, one line out, and the connection ends.
//!
//! A request is `{"command":"status"}` or `{"command":"reload"}`. Every answer has `ok`, and `error` where that is
//! false. Only the owner of the socket and root can connect. A client that is slow or says too much is cut off, so that
//! it holds up nothing.

use std::fs::{self, Permissions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Where the socket is unless somebody says otherwise.
pub const SOCKET_DEFAULT: &str = "/run/flowtap/control.sock";

/// What a run can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "command", deny_unknown_fields)]
pub enum Request {
    /// How it is going.
    Status,
    /// To read its configuration again.
    Reload,
}

/// Why there is no control socket, or no answer from it.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Another run has it.
    #[error("{}: another run answers there", path.display())]
    Taken {
        /// The socket.
        path: PathBuf,
    },
    /// The system refused.
    #[error("{}: {cause}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// What it said.
        cause: io::Error,
    },
}

/// Listens at `path`, in a directory that is made if need be. A socket that nobody answers is replaced.
///
/// # Errors
/// A run that answers, and what the system says.
pub(super) fn listen(path: &Path) -> Result<UnixListener, ControlError> {
    let refused = |cause| ControlError::Io { path: path.to_owned(), cause };
    if UnixStream::connect(path).is_ok() {
        return Err(ControlError::Taken { path: path.to_owned() });
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(refused(error)),
        Ok(()) | Err(_) => {}
    }
    let bind = || {
        if let Some(directory) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            fs::create_dir_all(directory)?;
        }
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, Permissions::from_mode(OWNER_ONLY))?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    bind().map_err(refused)
}

/// Answers whoever waits at `listener`, a bounded number at a time.
pub(super) fn serve(listener: &UnixListener, mut answer: impl FnMut(Request) -> Value) {
    for _ in 0..CLIENTS_MAX {
        let Ok((stream, _)) = listener.accept() else { return };
        if let Err(error) = serve_one(&stream, &mut answer) {
            tracing::debug!(%error, "a client of the control socket went away");
        }
    }
}

fn serve_one(mut stream: &UnixStream, answer: &mut impl FnMut(Request) -> Value) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(CLIENT_TIMEOUT))?;
    stream.set_write_timeout(Some(CLIENT_TIMEOUT))?;
    let mut line = String::new();
    BufReader::new(stream.take(REQUEST_BYTES_MAX)).read_line(&mut line)?;
    let reply = match serde_json::from_str(&line) {
        Ok(request) => answer(request),
        Err(error) => json!({ "ok": false, "error": format!("not a request: {error}") }),
    };
    writeln!(stream, "{reply}")
}

/// Asks the run that listens at `path`.
///
/// # Errors
/// When nobody answers, or not in JSON.
pub fn ask(path: &Path, request: Request) -> Result<Value, ControlError> {
    let refused = |cause| ControlError::Io { path: path.to_owned(), cause };
    let exchange = || {
        let mut stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        writeln!(stream, "{}", serde_json::to_string(&request)?)?;
        let mut reply = String::new();
        stream.take(REPLY_BYTES_MAX).read_to_string(&mut reply)?;
        Ok(serde_json::from_str(&reply)?)
    };
    exchange().map_err(refused)
}

const OWNER_ONLY: u32 = 0o600;

/// How long a client may take to ask, and to read its answer.
const CLIENT_TIMEOUT: Duration = Duration::from_millis(500);

/// How long an answer may take: a reload reads files.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// How many clients are answered before the run looks after its interfaces again.
const CLIENTS_MAX: usize = 8;

const REQUEST_BYTES_MAX: u64 = 4 * 1024;
const REPLY_BYTES_MAX: u64 = 16 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// Serves one client and says what it was told.
    fn exchange(request: &[u8]) -> String {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/control.sock");
        let listener = listen(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let mut client = UnixStream::connect(&path).unwrap();
        client.write_all(request).unwrap();
        serve(&listener, |request| json!({ "ok": true, "asked": format!("{request:?}") }));
        let mut reply = String::new();
        // A client that says too much is cut off, which may reset the connection.
        client.read_to_string(&mut reply).ok();
        reply
    }

    #[test]
    fn one_line_in_one_line_out() {
        assert_eq!(exchange(b"{\"command\":\"status\"}\n"), "{\"asked\":\"Status\",\"ok\":true}\n");
        assert_eq!(exchange(b"{\"command\":\"reload\"}\n"), "{\"asked\":\"Reload\",\"ok\":true}\n");
        for nonsense in [&b"\n"[..], b"{\"command\":\"halt\"}\n", b"\xff\xfe\n", &[b'['; 5000]] {
            let reply = exchange(nonsense);
            assert!(reply.is_empty() || reply.contains("\"ok\":false"), "{reply}");
        }
    }

    #[test]
    fn a_live_socket_is_left_alone_and_a_dead_one_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        let listener = listen(&path).unwrap();
        assert!(matches!(listen(&path), Err(ControlError::Taken { .. })));
        drop(listener);
        let listener = listen(&path).unwrap();
        let served = thread::spawn(move || {
            listener.set_nonblocking(false).unwrap();
            let (stream, _) = listener.accept().unwrap();
            serve_one(&stream, &mut |_| json!({ "ok": true })).unwrap();
        });
        assert_eq!(ask(&path, Request::Status).unwrap(), json!({ "ok": true }));
        served.join().unwrap();
        assert!(matches!(ask(&path, Request::Status), Err(ControlError::Io { .. })), "nobody is there any more");
    }
}
