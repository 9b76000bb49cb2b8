//! The walker's first steps.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::sched::{CloneFlags, unshare};
use nix::unistd::close;
use rustix::io::{Errno, read};
use rustix::net::{SendFlags, send};
use rustix::process::{
    DumpableBehavior, Gid, Signal, Uid, set_dumpable_behavior, set_parent_process_death_signal,
};
use rustix::thread::{set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::{FAILED, MAPPED, NAMESPACE, NO_NAMESPACE, READY};
use crate::limits;

/// Becomes what the parent wants; whether that went well. If not, the parent is told why.
pub(crate) fn begin(socket: &OwnedFd) -> bool {
    match become_walker(socket) {
        Ok(()) => true,
        Err(why) => {
            let mut words = vec![FAILED];
            words.extend(why.bytes().take(limits::WHY_BYTES_MAX));
            // If nobody hears it, nobody waits for it.
            send(socket, &words, SendFlags::NOSIGNAL).ok();
            false
        }
    }
}

fn become_walker(socket: &OwnedFd) -> Result<(), String> {
    let failed = |what: &'static str| move |errno: Errno| format!("{what}: {errno}");
    close_all_but(socket.as_raw_fd())?;
    match hear(socket)? {
        NO_NAMESPACE => {}
        NAMESPACE => {
            // Only a process of one thread may.
            unshare(CloneFlags::CLONE_NEWUSER).map_err(|errno| format!("unshare: {errno}"))?;
            say_ready(socket)?;
            if hear(socket)? != MAPPED {
                return Err("the parent said something else than that the map is written".into());
            }
            set_thread_groups(&[]).map_err(failed("setgroups"))?;
            let (uid, gid) = (Uid::ROOT, Gid::ROOT);
            set_thread_res_gid(gid, gid, gid).map_err(failed("setresgid"))?;
            set_thread_res_uid(uid, uid, uid).map_err(failed("setresuid"))?;
        }
        _ => return Err("the parent said something unknown".into()),
    }
    // Another user's process loses it, so it comes after that.
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(failed("death signal"))?;
    set_no_new_privs(true).map_err(failed("no new privileges"))?;
    // A process of the container, which has the same user, must not look into this one.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(failed("not dumpable"))?;
    say_ready(socket)
}

/// Closes what whoever started the program may have left open, but for the first three.
fn close_all_but(socket: RawFd) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("/proc/self/fd: {error}");
    let mut open = Vec::new();
    for entry in fs::read_dir("/proc/self/fd").map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        open.extend(name.to_str().and_then(|name| name.parse::<RawFd>().ok()));
    }
    for descriptor in open {
        if descriptor > 2 && descriptor != socket {
            // The one of the listing itself is closed already.
            close(descriptor).ok();
        }
    }
    Ok(())
}

fn hear(socket: &OwnedFd) -> Result<u8, String> {
    let mut byte = [0];
    loop {
        match read(socket, &mut byte) {
            Ok(1) => return Ok(byte[0]),
            Ok(_) => return Err("the parent hung up".into()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(format!("the socket failed: {errno}")),
        }
    }
}

fn say_ready(socket: &OwnedFd) -> Result<(), String> {
    match send(socket, &[READY], SendFlags::NOSIGNAL) {
        Ok(_) => Ok(()),
        Err(errno) => Err(format!("the socket failed: {errno}")),
    }
}
