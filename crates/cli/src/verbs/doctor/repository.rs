//! Temporary files of killed writers in a repository's folder. Whole packs that no index names need
//! nobody: the next backup uses them (docs/FORMAT.md, chapter 5).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use snapkeep_api::{Clock, Error, ErrorKind};
use snapkeep_host::doctor::{Finding, Owner, identity};
use snapkeep_repo::limits::TEMPORARY_AGE_SECONDS;
use snapkeep_repo::{LeftFile, left_files, remove_left_file};

use crate::units::human;

/// What this module finds.
const KIND: &str = "repository";
/// Processes, and open files of all of them, that are looked at.
const OPEN_FILES_MAX: usize = 1 << 20;
/// How long a repository is looked through.
const LOOK_LIMIT: Duration = Duration::from_secs(300);
/// What our processes are called.
const NAME: &str = "snapkeep";

/// Looks at a repository's folder; no key is needed. It may be on another machine that does not answer.
pub(super) fn left(folder: &Path, clock: &dyn Clock) -> Vec<Finding> {
    let (asked, now) = (folder.to_owned(), clock.now().0);
    let looked = within_limit(move || left_files(&asked, now));
    match looked.and_then(|files| files.map_err(of_repository)) {
        Ok(files) if files.is_empty() => Vec::new(),
        Ok(files) => {
            let open = open_files(&files);
            files.into_iter().map(|file| told(file, &open)).collect()
        }
        Err(e) => vec![Finding::unseen(KIND, folder.display(), &e)],
    }
}

/// Looks in a thread of its own, which is left to itself if it takes too long.
pub(super) fn within_limit<T: Send + 'static>(
    look: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    let (sender, receiver) = channel();
    let started = thread::Builder::new()
        .name("looks at a repository".to_owned())
        .spawn(move || sender.send(look()).ok());
    if let Err(e) = started {
        let what = "it cannot be looked at";
        return Err(Error::with_source(ErrorKind::Unavailable, what, e));
    }
    receiver.recv_timeout(LOOK_LIMIT).map_err(|_slow| {
        let what = format!(
            "it was not looked through within {} seconds",
            LOOK_LIMIT.as_secs()
        );
        Error::new(ErrorKind::Unavailable, what)
    })
}

fn of_repository(e: snapkeep_repo::Error) -> Error {
    Error::with_source(ErrorKind::Unavailable, "it cannot be looked at", e)
}

fn told(file: LeftFile, open: &BTreeMap<(u64, u64), u32>) -> Finding {
    let place = file.path.display();
    let what = format!(
        "a temporary file of a writer, {}, {} hours old",
        human(file.length),
        file.age / 3600
    );
    let owner = Owner::ours(format!(
        "writer with the process ID {} on whichever host",
        file.process
    ));
    let user = open.get(&file.identity).copied();
    let user = user.or_else(|| is_ours(file.process).then_some(file.process));
    if user.is_some() {
        return Finding::in_use(KIND, what, place, owner.with_process(user));
    }
    if file.age < TEMPORARY_AGE_SECONDS {
        return Finding::recent(KIND, what, place, owner)
            .costs("its disk space, if its writer is gone")
            .heals_by(
                "none yet: its writer may live on another host; it is removed once nobody has \
                 written to it for a day",
            );
    }
    let finding = Finding::stale(KIND, what, place, owner).costs("its disk space, for ever");
    let finding = finding.heals_by("it is removed: it is no part of the repository");
    finding.with_remedy(move |_, _| {
        remove_left_file(&file).map_err(of_repository)?;
        Ok("it is removed".to_owned())
    })
}

/// Whether a process of this host is one of ours.
fn is_ours(process: u32) -> bool {
    let name = fs::read_to_string(format!("/proc/{process}/comm"));
    name.is_ok_and(|name| name.trim_end() == NAME)
}

/// Which of these files a process of this host has open, and which one.
fn open_files(files: &[LeftFile]) -> BTreeMap<(u64, u64), u32> {
    let processes = fs::read_dir("/proc").into_iter().flatten();
    let processes = processes
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let descriptors = processes.flat_map(|process| {
        // Another user's are closed to us, and those of a process that ends are gone.
        let open = fs::read_dir(format!("/proc/{process}/fd"));
        (open.into_iter().flatten().flatten()).map(move |entry| (process, entry.path()))
    });
    let open = descriptors
        .take(OPEN_FILES_MAX)
        .filter_map(|(process, path)| Some((identity(&path)?, process)));
    open.filter(|(identity, _)| files.iter().any(|file| file.identity == *identity))
        .collect()
}
