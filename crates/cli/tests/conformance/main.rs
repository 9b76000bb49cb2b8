//! The conformance kit as authors of backup providers run it, over classes that are right and
//! classes with one flaw each.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../support/mod.rs"]
mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use support::{are_here, has_rights, sh, shell, skip};
use tempfile::TempDir;

const PERL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../perl");
const SNAPKEEP: &str = env!("CARGO_BIN_EXE_snapkeep");

/// What is not applicable to any class in Perl.
const UNSAID: [&str; 5] = [
    "odd_device_names_restore",
    "two_guests_at_once_do_not_mix",
    "reading_past_the_end_of_a_volume_fails",
    "a_bitmap_of_an_unknown_base_is_not_used",
    "a_nameless_base_is_not_trusted_across_incarnations",
];

/// How many properties of containers there are, and how many are not applicable to any class.
const CONTAINERS: usize = 30;
const UNSAID_OF_CONTAINERS: usize = 19;

/// What version 5 leaves to its caller.
const UNSAID_IN_V5: [&str; 4] = [
    "a_bitmap_of_an_uncommitted_base_is_not_used",
    "a_bitmap_of_another_guest_is_not_used",
    "a_bitmap_of_another_device_is_not_used",
    "a_bitmap_of_another_size_is_not_used",
];

fn conformance(args: &[&str]) -> Output {
    Command::new(SNAPKEEP)
        .arg("conformance")
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// All properties are there, held but for so many that are not applicable, these among them.
#[track_caller]
fn assert_conforms(args: &[&str], unsaid: &[&str], count: usize) {
    let output = conformance(args);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{output:?}");
    let lines: Vec<_> = text.lines().collect();
    let (last, lines) = lines.split_last().unwrap();
    let held = lines.iter().filter(|line| line.ends_with(": ok")).count();
    assert!(held > 20, "{text}");
    let sum = format!("{held} properties held, 0 failed, {count} not applicable");
    assert_eq!(*last, sum, "{text}");
    for property in unsaid {
        let begin = format!("{property}: not applicable: ");
        assert!(lines.iter().any(|line| line.starts_with(&begin)), "{text}");
    }
    assert_eq!(lines.len(), held + count, "{text}");
}

#[test]
fn the_provider_in_memory_and_our_own_have_all_properties() {
    for provider in ["--memory", "--own"] {
        for mechanism in ["nbd", "file-handle"] {
            assert_conforms(&[provider, "--mechanism", mechanism], &[], 0);
        }
    }
}

/// Whether our class can run here: it restores by a file system of its own.
fn our_class_runs(test: &str) -> bool {
    let json = shell(Path::new("/"), "perl -MJSON -e 1").status().unwrap();
    if !json.success() {
        skip(test, "perl with the module JSON");
    } else if !Path::new("/dev/fuse").exists() {
        skip(test, "/dev/fuse");
    } else {
        return are_here(test, &["perl"]) && has_rights(test);
    }
    false
}

/// What our class needs before.
fn prepare() -> String {
    format!(
        "{SNAPKEEP} init -r {{dir}}/repository --no-encryption --write-recovery-kit {{dir}}/kit"
    )
}

fn assert_our_class_conforms(mechanism: &str, dialect: &str, unsaid: &[&str]) {
    let set = |name: &str, value: &str| format!("snapkeep-{name}={value}");
    let prepare = prepare();
    assert_conforms(
        &[
            "--perl",
            "PVE::BackupProvider::Plugin::Snapkeep",
            "-I",
            PERL,
            "--dialect",
            dialect,
            "--mechanism",
            mechanism,
            "--set",
            &set("vm-mechanism", mechanism),
            "--set",
            &set("repository", "{dir}/repository"),
            "--set",
            &set("program", SNAPKEEP),
            "--prepare",
            &prepare,
        ],
        unsaid,
        unsaid.len() + UNSAID_OF_CONTAINERS,
    );
}

#[test]
fn our_class_conforms_over_nbd() {
    if our_class_runs("conformance::our_class_conforms_over_nbd") {
        assert_our_class_conforms("nbd", "shipped", &UNSAID);
    }
}

#[test]
fn our_class_conforms_by_file_handle() {
    if our_class_runs("conformance::our_class_conforms_by_file_handle") {
        assert_our_class_conforms("file-handle", "shipped", &UNSAID);
    }
}

#[test]
fn our_class_conforms_as_version_five_calls_it() {
    if our_class_runs("conformance::our_class_conforms_as_version_five_calls_it") {
        let mut unsaid = UNSAID.to_vec();
        unsaid.extend(UNSAID_IN_V5);
        assert_our_class_conforms("file-handle", "v5", &unsaid);
    }
}

#[test]
fn the_example_for_authors_conforms() {
    if !are_here("conformance::the_example_for_authors_conforms", &["perl"]) {
        return;
    }
    let (class, include) = (
        "PVE::BackupProvider::Plugin::Folder",
        format!("{PERL}/examples"),
    );
    let class = [
        "--perl",
        class,
        "-I",
        &include,
        "--set",
        "folder-path={dir}",
    ];
    // It has no containers.
    assert_conforms(&class, &UNSAID, UNSAID.len() + CONTAINERS);
}

/// The verdict of one property on the example with these subs in the place of its own.
#[track_caller]
fn verdict(subs: &str, property: &str, more: &[&str]) -> Value {
    verdict_of(
        "Folder",
        subs,
        property,
        &[&["--set", "folder-path={dir}"], more].concat(),
    )
}

/// The same with subs in the place of those of another class.
#[track_caller]
fn verdict_of(class: &str, subs: &str, property: &str, more: &[&str]) -> Value {
    let folder = TempDir::new().unwrap();
    let module = format!(
        "package Wrong;\nuse strict; use warnings; use POSIX ();\n\
         use base qw(PVE::BackupProvider::Plugin::{class});\n{subs}\n1;\n"
    );
    fs::write(folder.path().join("Wrong.pm"), module).unwrap();
    let (own, examples) = (folder.path().to_str().unwrap(), format!("{PERL}/examples"));
    let args = ["--perl", "Wrong", "-I", own, "-I", &examples, "-I", PERL];
    let mut args = args.to_vec();
    args.extend(["--json", "--only", property]);
    args.extend(more);
    let output = conformance(&args);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let line = report["properties"][0].clone();
    assert_eq!(line["property"], property, "{report}");
    assert_eq!(report["failed"] == 0, output.status.success(), "{report}");
    line
}

/// The kit catches what these subs do, by this property, and tells it by these words.
#[track_caller]
fn assert_caught(subs: &str, property: &str, words: &str, more: &[&str]) {
    assert_eq!(verdict("", property, &[])["result"], "held", "{property}");
    assert_failed(&verdict(subs, property, more), words);
}

#[track_caller]
fn assert_failed(line: &Value, words: &str) {
    assert_eq!(line["result"], "failed", "{line}");
    let why = line["why"].as_str().unwrap();
    assert!(why.contains(words), "{why}");
}

#[test]
fn flaws_of_classes_are_caught() {
    if !are_here("conformance::flaws_of_classes_are_caught", &["perl"]) {
        return;
    }
    // The unfinished folder becomes an archive although the backup failed.
    assert_caught(
        "sub backup_cleanup { my ($self, $vmid, $vmtype, $success) = @_;
             my $path = \"$self->{folder}/$self->{guest}->{name}\";
             PVE::BackupProvider::Plugin::Folder::write_file(\"$path.part/guest.conf\", 'x')
                 if -d \"$path.part\";
             rename(\"$path.part\", $path); return; }",
        "a_failed_run_leaves_no_archive",
        "was left behind",
        &[],
    );
    // What is behind the last whole 4 KiB is lost.
    assert_caught(
        "sub backup_vm { my ($self, @args) = @_; $self->SUPER::backup_vm(@args);
             for my $file (glob(\"$self->{folder}/$self->{guest}->{name}/*.raw\")) {
                 my ($clean) = $file =~ m/(.*)/; my $size = -s $clean;
                 truncate($clean, $size - $size % 4096); } return; }",
        "volumes_of_odd_sizes_restore",
        "is listed as",
        &[],
    );
    // The same, but zeroes in its place.
    assert_caught(
        "sub backup_vm { my ($self, @args) = @_; $self->SUPER::backup_vm(@args);
             for my $file (glob(\"$self->{folder}/$self->{guest}->{name}/*.raw\")) {
                 my ($clean) = $file =~ m/(.*)/; my $size = -s $clean;
                 truncate($clean, $size - 512); truncate($clean, $size); } return; }",
        "volumes_of_odd_sizes_restore",
        "differs at offset",
        &[],
    );
    // A bitmap is used although no archive can be its base.
    assert_caught(
        "sub backup_vm_query_incremental { my ($self, $vmid, $volumes) = @_;
             return { map { $_ => 'use' } keys $volumes->%* }; }",
        "a_bitmap_of_another_guest_is_not_used",
        "is used",
        &[],
    );
    // Proxmox VE would die of this in the middle of the restore.
    assert_caught(
        "sub restore_vm_init { my ($self, $volname) = @_; my $path = $self->path($volname);
             chomp(my $size = `/usr/bin/stat -c %s $path/drive-efidisk0.raw`);
             return { 'drive-efidisk0' => { size => $size } }; }",
        "volumes_of_odd_sizes_restore",
        "tainted",
        &[],
    );
    assert_caught(
        "sub backup_handle_log_file { die \"no log\\n\"; }",
        "an_archive_outlives_a_failed_finish",
        "backup_handle_log_file died: no log",
        &[],
    );
}

/// The example with dirty bitmaps, believed because nobody removes an archive or exchanges the
/// storage here. READ is what becomes of the regions of a bitmap that is reused.
const INCREMENTAL: &str = r#"
use File::Copy qw(copy);
our $base;
sub backup_vm_query_incremental {
    my ($self, $vmid, $volumes) = @_;
    opendir(my $folder, $self->{folder}) or die "no folder\n";
    my @times = map { m/\Aqemu-\Q$vmid\E-([0-9]+-0)\z/ ? $1 : () } readdir($folder);
    my ($newest) = sort { ($b =~ m/(.*)-/)[0] <=> ($a =~ m/(.*)-/)[0] } @times;
    $base = defined($newest) ? "$self->{folder}/qemu-$vmid-$newest" : undef;
    my $modes = {};
    for my $device (keys $volumes->%*) {
        my $same = defined($base) && (-s "$base/$device.raw" // 0) == $volumes->{$device}->{size};
        $modes->{$device} = $same ? 'use' : 'new';
    }
    return $modes;
}
my $whole = \&PVE::BackupProvider::Plugin::Folder::copy_volume;
no warnings 'redefine';
*PVE::BackupProvider::Plugin::Folder::copy_volume = sub {
    my ($volume, $path) = @_;
    return $whole->($volume, $path) if $volume->{'bitmap-mode'} ne 'reuse';
    my ($device) = $path =~ m!([^/]+)\z!;
    copy("$base/$device", $path) or die "no copy of the base: $!\n";
    open(my $to, '+<:raw', $path) or die "no copy of the base: $!\n";
    my ($from, $next) = $volume->@{qw(file-handle next-dirty-region)};
    READ
    return;
};
"#;

#[test]
fn dirty_bitmaps_are_handed_over_as_they_are_asked_for() {
    if !are_here("conformance::dirty_bitmaps_are_handed_over", &["perl"]) {
        return;
    }
    let right = "while (my ($offset, $length) = $next->()) {
            sysseek($from, $offset, 0) // die \"cannot seek: $!\\n\";
            (sysread($from, my $bytes, $length) // 0) == $length or die \"cannot read\\n\";
            PVE::BackupProvider::Plugin::Folder::write_at($to, $offset, $bytes);
            eval { PVE::Storage::Common::deallocate($from, $offset, $length) };
        }";
    for property in [
        "an_incremental_equals_the_disk",
        "a_clean_bitmap_reads_nothing",
        "only_dirty_regions_are_read",
        "what_was_read_is_discarded",
        "a_reused_bitmap_is_read_to_its_end",
        "a_failed_incremental_harms_nothing",
        "a_bitmap_of_an_uncommitted_base_is_not_used",
        "a_bitmap_of_another_guest_is_not_used",
        "a_bitmap_of_another_size_is_not_used",
    ] {
        let line = verdict(&INCREMENTAL.replace("READ", right), property, &[]);
        assert_eq!(line["result"], "held", "{line}");
    }
    // Which shows that the bitmaps were reused: each of these harms nothing where none is.
    for (wrong, property, words) in [
        ("", "an_incremental_equals_the_disk", "differs at offset"),
        (
            "$next->();",
            "a_reused_bitmap_is_read_to_its_end",
            "without knowing the whole bitmap",
        ),
        (
            &right.replace("eval", "0 and eval"),
            "what_was_read_is_discarded",
            "were not discarded",
        ),
    ] {
        let line = verdict(&INCREMENTAL.replace("READ", wrong), property, &[]);
        assert_failed(&line, words);
    }
}

#[test]
fn flaws_in_the_way_of_containers_are_caught() {
    if !our_class_runs("conformance::flaws_in_the_way_of_containers_are_caught") {
        return;
    }
    let prepare = prepare();
    let ours = |subs: &str| {
        let more = [
            "--set",
            "snapkeep-repository={dir}/repository",
            "--set",
            &format!("snapkeep-program={SNAPKEEP}"),
            "--set",
            "other={dir}/other",
            "--prepare",
            &prepare,
        ];
        verdict_of("Snapkeep", subs, "odd_names_restore", &more)
    };
    assert_eq!(ours("")["result"], "held");
    // The child that reads the container is killed, and its caller takes that for success.
    let line = ours("sub backup_container { kill('KILL', $$); } sub backup_cleanup { return; }");
    assert_failed(&line, "there is no archive");
    // Proxmox VE has JSON of what the child returns.
    let line = ours("sub backup_container { my ($self) = @_; return $self; }");
    assert_failed(&line, "an object of Wrong was returned");
    let line = ours(
        "sub restore_container_init { my ($self) = @_; mkdir($self->{scfg}->{other});
             return { 'archive-directory' => $self->{scfg}->{other} }; }",
    );
    assert_failed(&line, "/ is Entry");
    // What is opened in the child is opened as the container's root user.
    let line = ours(
        "sub backup_container { my ($self) = @_;
             open(my $file, '<', '/proc/1/environ') or die \"no way in: $!\\n\"; return; }",
    );
    assert_failed(&line, "backup_container died: no way in: Permission denied");
}

#[test]
fn a_class_that_hangs_or_dies_fails_its_property_and_is_told() {
    if !are_here("conformance::a_class_that_hangs_or_dies", &["perl"]) {
        return;
    }
    let property = "what_was_committed_restores_byte_for_byte";
    assert_caught(
        "sub backup_vm { sleep(1) while 1; }",
        property,
        "backup_vm did not return within 2 s",
        &["--time-limit", "2"],
    );
    assert_caught(
        "sub backup_vm { print STDERR \"out of luck\\n\"; POSIX::_exit(7); }",
        property,
        "ended in backup_vm (exit status: 7); it wrote: out of luck",
        &[],
    );
    assert_caught(
        "sub job_init { kill('KILL', $$); }",
        property,
        "ended in job_init (signal: 9 (SIGKILL))",
        &[],
    );
    assert_caught("die \"not today\\n\";", property, "not today", &[]);
    let failing = ["--prepare", "/bin/false {dir}"];
    assert_caught("", property, "`/bin/false {dir}`: exit status: 1", &failing);
    let wanted = ["--mechanism", "nbd"];
    assert_caught("", property, "'file-handle', but it was to be nbd", &wanted);
}

#[test]
fn wrong_usage_is_told_and_nothing_is_left_of_a_run() {
    let folder = TempDir::new().unwrap();
    let output = conformance(&["--memory", "--only", "no_such_property"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let output = conformance(&["--memory", "--own"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    // Nothing was checked, so nothing is shown.
    let none = ["--only", UNSAID[0]];
    let output = conformance(&[&["--perl", "Absent"], &none[..]].concat());
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    if are_here("conformance::nothing_is_left", &["perl"]) {
        let line = format!(
            "TMPDIR=$PWD {SNAPKEEP} conformance --perl PVE::BackupProvider::Plugin::Folder \
             -I {PERL}/examples --set folder-path={{dir}} --only volumes_of_odd_sizes_restore"
        );
        let told = sh(folder.path(), &line);
        assert!(told.contains("1 properties held"), "{told}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
