//! How much room a storage has. The caller polls all storages in turn and must not be held up by
//! one that hangs, so a note of the last answer is kept.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use snapkeep_api::{Clock, SystemClock};
use snapkeep_repo::Storage;

use super::settings::StorageSettings;
use crate::place::Place;

/// How long the file system may take where nothing else is known.
const LIMIT: Duration = Duration::from_secs(2);
/// How long it may take where a note can answer, so that the answer comes within a second.
const LIMIT_WITH_NOTE: Duration = Duration::from_millis(500);
/// How long a note stands for an answer.
const NOTE_COUNTS: Duration = Duration::from_secs(60);
/// The longest note.
const NOTE_LENGTH_MAX: usize = 4096;

/// Bytes of a file system.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
struct Room {
    total: u64,
    available: u64,
    used: u64,
}

/// What is kept.
#[derive(Deserialize, Serialize)]
struct Note {
    /// Seconds since the epoch.
    time: i64,
    /// Another repository's room is no answer.
    repository: PathBuf,
    room: Room,
}

/// The storage's state: now, or as it was within the last minute if it does not answer.
pub(super) fn status(settings: &StorageSettings) -> Value {
    let (sender, answer) = sync_channel(1);
    let place = settings.place();
    let asked = std::thread::Builder::new()
        .name("status".to_owned())
        // Who waits no longer is not told.
        .spawn(move || drop(sender.send(place.and_then(|place| room(&place)))));
    let place = note_place(settings);
    let note = read(&place).filter(|note| note.repository == settings.repository);
    let counts = |note: &Note| now().abs_diff(note.time) < NOTE_COUNTS.as_secs();
    let limit = match &note {
        Some(note) if counts(note) => LIMIT_WITH_NOTE,
        _ => LIMIT,
    };
    let answer = match asked {
        Ok(_thread) => answer.recv_timeout(limit),
        Err(_) => Err(RecvTimeoutError::Timeout),
    };
    match answer {
        Ok(Ok(room)) => {
            // A note that cannot be written is only missed when the storage hangs.
            drop(write(&place, &settings.repository, room));
            told(room, true)
        }
        // It answered: it is not there.
        Ok(Err(_)) | Err(RecvTimeoutError::Disconnected) => told(
            Room {
                total: 0,
                available: 0,
                used: 0,
            },
            false,
        ),
        Err(RecvTimeoutError::Timeout) => match note {
            Some(note) => told(note.room, counts(&note)),
            None => told(
                Room {
                    total: 0,
                    available: 0,
                    used: 0,
                },
                false,
            ),
        },
    }
}

fn told(room: Room, active: bool) -> Value {
    let Room {
        total,
        available,
        used,
    } = room;
    json!({"active": u8::from(active), "total": total, "available": available, "used": used})
}

/// Of a place in which there is a repository. A bucket has no bounds that could be told.
fn room(place: &Place) -> anyhow::Result<Room> {
    let folder = match place {
        Place::Folder(folder) => folder,
        Place::Bucket(..) => {
            (place.open_impatient(LIMIT)?).length(&"config".parse()?)?;
            return Ok(Room {
                total: 0,
                available: 0,
                used: 0,
            });
        }
    };
    fs::metadata(folder.join("config"))?;
    let found = rustix::fs::statvfs(folder)?;
    let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
    Ok(Room {
        total: bytes(found.f_blocks),
        available: bytes(found.f_bavail),
        used: bytes(found.f_blocks.saturating_sub(found.f_bfree)),
    })
}

fn note_place(settings: &StorageSettings) -> PathBuf {
    let name = format!("{}.json", settings.storage);
    settings.run.join("status").join(name)
}

fn write(place: &Path, repository: &Path, room: Room) -> io::Result<()> {
    let folder = place.parent().unwrap_or(Path::new("/"));
    let made = fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder);
    made?;
    let note = Note {
        time: now(),
        repository: repository.to_owned(),
        room,
    };
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    serde_json::to_writer(&mut file, &note)?;
    file.persist(place)?;
    Ok(())
}

fn read(place: &Path) -> Option<Note> {
    let text = fs::read(place).ok()?;
    (text.len() <= NOTE_LENGTH_MAX)
        .then(|| serde_json::from_slice(&text).ok())
        .flatten()
}

/// In seconds since the epoch.
fn now() -> i64 {
    SystemClock::new().now().0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(folder: &Path) -> StorageSettings {
        let run = folder.join("run");
        let given = json!({"repository": folder.join("repository"), "run_folder": run});
        StorageSettings::new("store", &given).unwrap()
    }

    #[test]
    fn a_repository_has_the_room_of_its_file_system() {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(folder.path());
        assert_eq!(status(&settings)["active"], 0);
        fs::create_dir(&settings.repository).unwrap();
        assert_eq!(status(&settings)["active"], 0);
        fs::write(settings.repository.join("config"), "").unwrap();
        let answer = status(&settings);
        assert_eq!(answer["active"], 1);
        assert!(answer["total"].as_u64().unwrap() >= answer["used"].as_u64().unwrap());
        assert!(read(&note_place(&settings)).is_some_and(|note| note.room.total > 0));
    }
}
