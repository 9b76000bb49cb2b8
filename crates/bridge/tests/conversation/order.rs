//! What callers really do, and how a conversation ends.

use std::process::{Command, Stdio};

use serde_json::{Value, json};
use snapkeep_api::VmMechanism;

use crate::peer::{Memory, Peer};

fn memory() -> Memory {
    Memory::new(VmMechanism::Nbd)
}

fn init(vmid: u32) -> Value {
    json!({"vmid": vmid, "vmtype": "qemu", "start_time": 1000})
}

fn run(vmid: u32) -> Value {
    json!({"vmid": vmid, "guest_config": "", "volumes": {}})
}

fn cleanup(vmid: u32, success: u8) -> Value {
    json!({"vmid": vmid, "vmtype": null, "success": success, "error": "why"})
}

fn begun() -> Peer {
    let mut peer = Peer::greeted(memory());
    peer.good("job_init", json!({"start_time": 1000}));
    peer
}

#[test]
fn a_cleanup_without_an_init_is_no_error_unless_it_says_that_all_is_well() {
    let mut peer = Peer::greeted(memory());
    peer.good("backup_cleanup", cleanup(100, 0));
    assert!(peer.call("backup_cleanup", cleanup(100, 1)).is_err());
    peer.good("job_init", json!({"start_time": 1000}));
    peer.good("backup_cleanup", cleanup(100, 0));
    let (_, message) = peer.call("backup_cleanup", cleanup(100, 1)).unwrap_err();
    assert_eq!(
        message,
        "no backup of guest 100 was committed: none was begun"
    );
    // Another guest's cleanup does not touch the one at hand.
    peer.good("backup_init", init(100));
    peer.good("backup_cleanup", cleanup(101, 0));
    assert!(peer.call("backup_cleanup", cleanup(101, 1)).is_err());
    peer.good("backup_vm", run(100));
    assert_eq!(
        peer.good("backup_cleanup", cleanup(100, 1)),
        json!({"archive-size": 0})
    );
}

#[test]
fn a_second_cleanup_changes_nothing() {
    let mut peer = begun();
    peer.good("backup_init", init(100));
    peer.good("backup_vm", run(100));
    peer.good("backup_cleanup", cleanup(100, 1));
    assert_eq!(
        peer.good("backup_cleanup", cleanup(100, 1)),
        json!({"archive-size": 0})
    );
    assert_eq!(peer.good("backup_cleanup", cleanup(100, 0)), Value::Null);
    assert_eq!(peer.logged.len(), 1);
    assert!(peer.logged[0].starts_with("warn guest 100: ") && peer.logged[0].ends_with(": why"));
    peer.good(
        "backup_handle_log_file",
        json!({"vmid": 100, "path": "/log"}),
    );
    peer.good("job_cleanup", json!({}));
    peer.good("job_cleanup", json!({"error": "twice"}));
    let events = peer.end();
    let tail = [
        "end Success",
        "log 100 memory/vm/100/1000-1",
        "job end Success",
    ];
    assert_eq!(events[4..], tail, "{events:?}");
}

#[test]
fn a_failure_ends_a_guest_and_a_success_without_a_commit_is_one() {
    let mut peer = begun();
    peer.good("backup_init", init(100));
    peer.good("backup_cleanup", cleanup(100, 0));
    peer.good("backup_cleanup", cleanup(100, 0));
    peer.good("backup_init", init(101));
    let (_, message) = peer.call("backup_cleanup", cleanup(101, 1)).unwrap_err();
    assert!(
        message.starts_with("no backup of guest 101 was committed: "),
        "{message}"
    );
    peer.good("backup_cleanup", cleanup(101, 0));
    peer.good(
        "backup_handle_log_file",
        json!({"vmid": 101, "path": "/log"}),
    );
    peer.good("job_cleanup", json!({"error": "bad"}));
    let events = peer.end();
    assert_eq!(events[3], "end Failure(\"why\")");
    assert!(
        events[5].starts_with("end Failure(\"no backup of guest 101"),
        "{events:?}"
    );
    assert_eq!(events[6..], ["log 101 none", "job end Failure(\"bad\")"]);
}

#[test]
fn a_log_that_cannot_be_kept_is_a_warning() {
    let mut peer = Peer::greeted(memory());
    for args in [
        json!({"vmid": 100, "path": "/log"}),
        json!({"vmid": "x", "path": "/log"}),
        json!({}),
    ] {
        assert_eq!(peer.good("backup_handle_log_file", args), Value::Null);
        assert!(
            peer.logged[0].starts_with("warn the task log is not kept"),
            "{:?}",
            peer.logged
        );
    }
    peer.good("job_init", json!({"start_time": 1000}));
    for path in ["relative", "/absent"] {
        peer.good("backup_handle_log_file", json!({"vmid": 100, "path": path}));
        assert_eq!(peer.logged.len(), 1, "{path}");
    }
}

#[test]
fn calls_out_of_order_are_errors() {
    let mut peer = Peer::greeted(memory());
    let of = json!({"vmid": 100, "vmtype": "qemu"});
    for (call, args) in [
        ("backup_init", init(100)),
        ("backup_get_mechanism", of.clone()),
        ("backup_vm", run(100)),
    ] {
        assert_eq!(peer.call(call, args).unwrap_err().0, "protocol", "{call}");
    }
    peer.good("job_init", json!({"start_time": 1000}));
    assert_eq!(
        peer.call("job_init", json!({"start_time": 1}))
            .unwrap_err()
            .0,
        "protocol"
    );
    assert_eq!(peer.call("backup_vm", run(100)).unwrap_err().0, "protocol");
    peer.good("backup_init", init(100));
    assert_eq!(peer.call("backup_vm", run(101)).unwrap_err().0, "protocol");
    let other = json!({"vmid": 100, "vmtype": "lxc"});
    assert_eq!(
        peer.call("backup_get_mechanism", other).unwrap_err().0,
        "protocol"
    );
    let unknown = json!({"vmid": 100, "vmtype": "bhyve"});
    assert_eq!(
        peer.good("backup_get_mechanism", unknown)["mechanism"],
        Value::Null
    );
    assert_eq!(
        peer.call(
            "backup_init",
            json!({"vmid": 1, "vmtype": "bhyve", "start_time": 1})
        )
        .unwrap_err()
        .0,
        "unsupported"
    );
    // A guest whose cleanup never came ends when the next begins, or with the job.
    peer.good("backup_init", init(101));
    peer.good("job_cleanup", json!({}));
    let events = peer.end();
    assert_eq!(events[3], "end Failure(\"another guest's backup began\")");
    assert_eq!(
        events[5..],
        ["end Failure(\"the job ended\")", "job end Success"]
    );
}

#[test]
fn the_end_of_the_socket_ends_whatever_was_begun() {
    let calls = [
        ("job_init", json!({"start_time": 1})),
        ("backup_init", init(100)),
        ("backup_vm", run(100)),
    ];
    for most in 0..=calls.len() {
        let mut peer = Peer::greeted(memory());
        for (call, args) in &calls[..most] {
            peer.good(call, args.clone());
        }
        let events = peer.end();
        let ended = |what: &str| {
            events
                .iter()
                .filter(|event| event.starts_with(what))
                .count()
        };
        assert_eq!(ended("end Failure"), usize::from(most > 1), "{events:?}");
        assert_eq!(
            ended("job end Failure"),
            usize::from(most > 0),
            "{events:?}"
        );
    }
}

fn stalled(peer: &mut Peer) -> String {
    peer.good("job_init", json!({"start_time": 1}));
    peer.good("backup_init", init(100));
    let id = peer.send("backup_vm", run(100));
    assert_eq!(peer.message().unwrap()["message"], "it stalls");
    id
}

#[test]
fn the_end_of_the_socket_cancels_what_runs() {
    let mut memory = memory();
    memory.stalls = true;
    let mut peer = Peer::greeted(memory);
    stalled(&mut peer);
    let events = peer.end();
    assert_eq!(
        events[4],
        "end Failure(\"the process that made the backup is gone\")"
    );
}

#[test]
fn a_call_that_comes_while_another_runs_cancels_that() {
    let mut memory = memory();
    memory.stalls = true;
    let mut peer = Peer::greeted(memory);
    let first = stalled(&mut peer);
    // The caller was sent a signal, and cleans up.
    let second = peer.send("backup_cleanup", cleanup(100, 0));
    let cancelled = peer.message().unwrap();
    assert_eq!(cancelled["id"], *first);
    assert_eq!(cancelled["error"]["kind"], "cancelled");
    peer.answer(&second).unwrap();
    peer.good("job_cleanup", json!({"error": "interrupted by signal"}));
    assert_eq!(
        peer.end()[4..],
        [
            "end Failure(\"why\")",
            "job end Failure(\"interrupted by signal\")"
        ]
    );
}

#[test]
fn a_call_that_comes_together_with_another_cancels_that() {
    let mut memory = memory();
    memory.stalls = true;
    let mut peer = Peer::greeted(memory);
    peer.good("job_init", json!({"start_time": 1}));
    peer.good("backup_init", init(100));
    let line = |id: &str, call, args: Value| {
        format!("{}\n", json!({"id": id, "call": call, "args": args}))
    };
    let both = line("x-1", "backup_vm", run(100)) + &line("x-2", "backup_cleanup", cleanup(100, 0));
    peer.say(both.as_bytes());
    let (kind, _) = peer.answer("x-1").unwrap_err();
    assert_eq!(kind, "cancelled");
    peer.answer("x-2").unwrap();
    peer.end();
}

#[test]
fn the_end_of_the_starter_ends_all_also_if_somebody_else_has_the_socket() {
    for stalls in [false, true] {
        let mut starter = Command::new("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut memory = memory();
        memory.stalls = stalls;
        let mut peer = Peer::new(memory);
        let mut hello = Peer::hello();
        hello["pid"] = json!(starter.id());
        peer.good("hello", hello);
        if stalls {
            stalled(&mut peer);
        } else {
            peer.good("job_init", json!({"start_time": 1}));
        }
        starter.kill().unwrap();
        starter.wait().unwrap();
        let events = peer.ended();
        assert!(
            events.last().unwrap().starts_with("job end Failure"),
            "{events:?}"
        );
    }
    let gone = json!({"version": 1, "pid": 4_000_000, "storage": "store"});
    assert!(Peer::new(memory()).call("hello", gone).is_err());
}
