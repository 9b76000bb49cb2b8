//! One connection: its handshake, then its requests.

use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use super::answer::Answers;
use super::queue::Queue;
use super::{Export, Shared};
use crate::error::{ErrorKind, Fault};
use crate::handshake::Agreed;
use crate::handshake::server::{Outcome, ServerHandshake};
use crate::limits;
use crate::shake;
use crate::stream::Stream;
use crate::transmission::requests::{Command, Request};
use crate::wire::RequestHeader;

/// A request and the payload that came with it.
struct Work {
    request: Request,
    payload: Vec<u8>,
}

/// Serves a client, the server's `number`th, until it leaves, fails or the server stops.
pub(super) fn serve(mut stream: Stream, number: u64, shared: &Shared) {
    let mut who = format!("client {number}");
    let result = shake_hands(&mut stream, shared).and_then(|chosen| {
        let Some((name, export, agreed)) = chosen else {
            return Ok(());
        };
        who = format!("client {number} of export {name:?}");
        transmit(&mut stream, shared, export.as_ref(), &agreed, &who)
    });
    if let Err(fault) = result {
        // A client that just goes away, as many do, is no news; nor is the end of the server.
        let silent = fault.kind == ErrorKind::Unavailable || shared.is_stopping();
        if !silent {
            shared.log(&who, &fault.message);
        }
    }
}

/// An export, its name, and how it is talked about.
type Chosen = (String, Arc<dyn Export>, Agreed);

fn shake_hands(stream: &mut Stream, shared: &Shared) -> Result<Option<Chosen>, Fault> {
    let handshake = ServerHandshake::new(shared.offers());
    match shake::hands(stream, handshake, shared.options.handshake_timeout)? {
        Outcome::Left => Ok(None),
        Outcome::Transmission { export, agreed } => {
            stream
                .set_timeouts(None, None)
                .map_err(|error| Fault::lost(error, "entering transmission"))?;
            let found = shared
                .exports
                .get(&export)
                .ok_or_else(|| Fault::protocol("the export is gone"))?;
            Ok(Some((export, Arc::clone(found), agreed)))
        }
    }
}

fn transmit(
    stream: &mut Stream,
    shared: &Shared,
    export: &dyn Export,
    agreed: &Agreed,
    who: &str,
) -> Result<(), Fault> {
    let failed = |error| Fault::lost(error, "serving requests");
    let queue = Queue::new(shared.options.in_flight, limits::MAX_CONNECTION_BYTES);
    let writer = Mutex::new(stream.try_clone().map_err(failed)?);
    let answers = Answers {
        export,
        agreed,
        shared,
        who,
    };
    thread::scope(|scope| {
        let mut threads = 0;
        let result = loop {
            if shared.is_stopping() {
                break Ok(());
            }
            let work = match next_request(stream, agreed, &queue) {
                Ok(Some(work)) => work,
                Ok(None) => break Ok(()),
                Err(fault) => break Err(fault),
            };
            if queue.add(work) && threads < shared.options.in_flight {
                let run = || work_off(&queue, &writer, &answers);
                let spawned = thread::Builder::new()
                    .name("nbd-request".to_owned())
                    .spawn_scoped(scope, run);
                match spawned {
                    Ok(_) => threads += 1,
                    // With at least one thread the connection goes on, only slower.
                    Err(_) if threads > 0 => {}
                    Err(error) => break Err(failed(error)),
                }
            }
        };
        match &result {
            // proto.md: what is in flight when a client says good-bye is still handled.
            Ok(()) => queue.close(),
            // The end of the server is the end of reading only.
            Err(_) if shared.is_stopping() => queue.close(),
            Err(_) => queue.abandon(),
        }
        result
    })
}

/// Reads the next request and, once there is room for it, its payload; `None` when the client says
/// good-bye or a reply could not be sent.
fn next_request(
    stream: &mut Stream,
    agreed: &Agreed,
    queue: &Queue<Work>,
) -> Result<Option<Work>, Fault> {
    let failed = |error: io::Error| {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            Fault::closed("sending a request")
        } else {
            Fault::lost(error, "reading a request")
        }
    };
    let mut bytes = [0; 32];
    let bytes = &mut bytes[..RequestHeader::bytes(agreed.style)];
    stream.read_exact(bytes).map_err(failed)?;
    let header = RequestHeader::decode(agreed.style, bytes)
        .ok_or_else(|| Fault::protocol("the client's request lacks the magic"))?;
    let request = Request::judge(header, agreed)?;
    if request.verdict == Ok(Command::Disconnect) || !queue.enter(request.data_bytes()) {
        return Ok(None);
    }
    let mut payload = Vec::new();
    let mut incoming = Read::take(&mut *stream, request.payload);
    let copied = if request.verdict.is_ok() {
        incoming
            .read_to_end(&mut payload)
            .map(|_| u64::try_from(payload.len()).unwrap_or(u64::MAX))
    } else {
        // A payload that is refused is read all the same, to stay in step, but not kept.
        io::copy(&mut incoming, &mut io::sink())
    };
    if copied.map_err(failed)? != request.payload {
        return Err(Fault::closed("sending a payload"));
    }
    Ok(Some(Work { request, payload }))
}

/// Answers requests until there are no more.
fn work_off(queue: &Queue<Work>, writer: &Mutex<Stream>, answers: &Answers<'_>) {
    let mut buffer = Vec::new();
    while let Some(Work { request, payload }) = queue.take() {
        let (head, body) = answers.answer(&request, &payload, &mut buffer);
        let sent = {
            // A reply must not be interleaved with another. Nothing that runs under the lock can
            // panic.
            let mut stream = writer.lock().unwrap_or_else(PoisonError::into_inner);
            let sent = stream.write_both(&head, &buffer[..body], |_| Ok(()));
            if sent.is_err() {
                // Half a reply may be out, so nothing may follow it; this also ends the reading.
                stream.shutdown();
            }
            sent
        };
        buffer.truncate(limits::KEPT_BUFFER_BYTES);
        buffer.shrink_to(limits::KEPT_BUFFER_BYTES);
        drop(payload);
        queue.done(request.data_bytes());
        if sent.is_err() {
            queue.abandon();
        }
    }
}
