//! Walks a folder as a backup does, keeps nothing, and prints how much there is and what went wrong:
//! `walk FOLDER [ID-MAP]`, for example `walk /var/lib/lxc/101/rootfs 0:100000:65536`.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "it talks to the person at the terminal"
)]

use std::env;
use std::error::Error;
use std::io;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::Instant;

use snapkeep_api::Result;
use snapkeep_api::tree::{
    Content, EntryKind, Found, Judgement, KnownTree, Name, Step, Told, TreeSource,
};
use snapkeep_walk::userns::Command;
use snapkeep_walk::{Options, Pull, Request, run_walker};

struct Nothing;

impl KnownTree for Nothing {
    fn judge(&mut self, _: &Name, _: &Found) -> Result<Judgement> {
        Ok(Judgement::Read)
    }
}

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let result = match &arguments[..] {
        [one] if one == "--as-walker" => match io::stdin().as_fd().try_clone_to_owned() {
            Ok(socket) => return ExitCode::from(run_walker(socket)),
            Err(error) => Err(error.into()),
        },
        [folder] => walk(folder, None),
        [folder, map] => walk(folder, Some(map)),
        _ => Err("usage: walk FOLDER [ID-MAP]".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn walk(folder: &str, map: Option<&String>) -> Result<(), Box<dyn Error>> {
    let begin = Instant::now();
    let command = Command {
        program: env::current_exe()?,
        arguments: vec!["--as-walker".into()],
        directory: Some(folder.into()),
        id_map: map.map(|map| map.parse()).transpose()?,
    };
    let request = Request {
        directory: ".".into(),
        sources: vec![b"./".to_vec()],
        exclude: Vec::new(),
        ask: true,
    };
    let mut pull = Pull::of(command.spawn()?, &request, Options::default())?;
    let (mut entries, mut bytes, mut problems) = (0_u64, 0_u64, 0_u64);
    let mut buffer = vec![0; 1 << 20];
    while let Some(step) = pull.next(&mut Nothing)? {
        match step {
            Step::Enter(_) => entries += 1,
            Step::Leave => {}
            Step::Entry(told) => {
                entries += 1;
                if is_file(&told) {
                    bytes += content(&mut pull, &mut buffer)?;
                }
            }
            Step::Problem(problem) => {
                problems += 1;
                let name = problem.name.map_or(String::new(), |name| name.to_string());
                println!("{:?}: {name}: {}", problem.kind, problem.why);
            }
        }
    }
    let seconds = begin.elapsed().as_secs_f32();
    println!("{entries} entries, {bytes} bytes of content, {problems} problems, {seconds:.2} s");
    Ok(())
}

fn is_file(told: &Told) -> bool {
    let kind = told.entry.as_ref().map(|entry| &entry.kind);
    matches!(kind, Some(EntryKind::File { .. }))
}

fn content(pull: &mut Pull, buffer: &mut [u8]) -> Result<u64> {
    let mut bytes = 0;
    loop {
        match pull.read(buffer)? {
            Content::Data(length) => bytes += u64::try_from(length).unwrap_or(u64::MAX),
            Content::Hole(length) => bytes += length,
            Content::End { .. } | Content::Lost(_) => return Ok(bytes),
        }
    }
}
