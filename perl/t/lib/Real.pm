package Real;

# A storage on the real program, which the environment names in SNAPKEEP_PROGRAM, with a machine's disk behind an NBD
# server of QEMU and a container's tree.

use strict;
use warnings;

use Cwd qw(abs_path);
use Exporter qw(import);
use IO::File;
use POSIX ();
use Test::More;
use Time::HiRes qw(sleep);

use Bench;
use PVE::BackupProvider::Plugin::Snapkeep::Settings;

our @EXPORT_OK = qw(archives content key_path needs output_of program real_context real_scfg run_program server);

# Several times what is read at once, so that a limit is kept, and not a whole number of any unit; with holes.
use constant SIZE => 9 * 1024 * 1024 + 1536;

my ($program, $server);

# Skips the test if something is missing.
sub needs {
    my ($test, @tools) = @_;
    my $named = untainted($ENV{SNAPKEEP_PROGRAM} // '');
    push @tools, $named if $named;
    my @missing = grep { !-x $_ } @tools;
    @missing = ('snapkeep') if !$named;
    if (@missing) {
        print STDERR "SKIP: $test: needs @missing\n";
        plan(skip_all => "needs @missing");
    }
    # Where a container's root can come to it.
    $program = folder() . '/snapkeep';
    my $from = untainted(abs_path($named));
    link($from, $program) or run('cp', $from, $program);
    mkdir(folder() . '/store', 0700);
    make_repository();
    make_disk();
    make_tree();
    return;
}

END {
    if ($server) {
        local $?;
        kill('KILL', $server);
        waitpid($server, 0);
    }
}

{
    no warnings 'redefine';
    my $settings = \&PVE::BackupProvider::Plugin::Snapkeep::Settings::settings;
    *PVE::BackupProvider::Plugin::Snapkeep::Settings::settings = sub {
        return { $settings->(@_)->%*, run_folder => folder() . '/run', workers => '2' };
    };
}

sub run { my (@command) = @_; system { $command[0] } @command and die "$command[0] failed: $?\n"; return; }

# The program with these arguments; whether it succeeded.
sub run_program { return defined(output_of(@_)) ? 1 : 0; }

# What it writes to its standard output; undef if it fails.
sub output_of {
    my (@arguments) = @_;
    pipe(my $read, my $write) or die $!;
    my $pid = fork() // die $!;
    if ($pid == 0) {
        open(STDOUT, '>&', $write);
        open(STDERR, '>', folder() . '/program.err');
        no warnings 'exec';
        push @arguments, '--key-file', key_path() if $arguments[0] ne 'init';
        exec { $program } $program, '-r', folder() . '/store/repository', @arguments;
        POSIX::_exit(127);
    }
    close($write);
    my $output = do { local $/ = undef; <$read> } // '';
    waitpid($pid, 0);
    return $? == 0 ? $output : undef;
}

# The program itself, as it is named in the storage.
sub program { return $program; }

sub key_path { return folder() . '/secrets/' . STOREID . '.snapkeep-key'; }

sub content { my ($path) = @_; my $file = IO::File->new($path, 'r') or return undef; local $/ = undef; return scalar(<$file>); }

sub make_repository {
    run_program('init', '--new-key-file', key_path(), '--write-recovery-kit', folder() . '/kit') or die "no repository\n";
    return;
}

sub real_scfg { return scfg('snapkeep-program' => $program, 'snapkeep-repository' => folder() . '/store/repository', @_); }

sub make_disk {
    open(my $random, '<:raw', '/dev/urandom') or die $!;
    open(my $disk, '>:raw', folder() . '/disk') or die $!;
    for my $start (0, 5 * 1024 * 1024) {
        sysread($random, my $bytes, 1024 * 1024) == 1024 * 1024 or die $!;
        sysseek($disk, $start, 0);
        syswrite($disk, $bytes);
    }
    truncate($disk, SIZE);
    close($disk);
    my $pid = fork() // die $!;
    if ($pid == 0) {
        open(STDOUT, '>', '/dev/null');
        open(STDERR, '>', '/dev/null');
        no warnings 'exec';
        exec('/usr/bin/qemu-nbd', '-k', folder() . '/nbd', '-x', 'drive-scsi0', '-f', 'raw', '-r', '-t', '-e', '16', folder() . '/disk');
        POSIX::_exit(127);
    }
    $server = $pid;
    while (!-S folder() . '/nbd') {
        die "qemu-nbd ended\n" if waitpid($server, POSIX::WNOHANG()) > 0;
        sleep(0.01);
    }
    return;
}

sub server { return $server; }

sub make_tree {
    my $tree = folder() . '/tree';
    mkdir($_) for $tree, "$tree/etc", "$tree/empty", "$tree/tmp";
    my %files = ("$tree/etc/hosts" => "127.0.0.1\n", "$tree/large" => substr(content(folder() . '/disk'), 0, 600_000),
        "$tree/none" => '',
        "$tree/other" => substr(content(folder() . '/disk'), 5_500_000, 700_000), "$tree/b\xc3\xbccher" => "x\n", "$tree/new\nline" => "y\n", "$tree/tmp/excluded" => "z\n");
    for my $path (sort keys %files) {
        open(my $file, '>:raw', $path) or die $!;
        print $file $files{$path};
        close($file);
    }
    link("$tree/etc/hosts", "$tree/again");
    symlink('etc/hosts', "$tree/link");
    chmod(04755, "$tree/large");
    POSIX::mkfifo("$tree/fifo", 0640);
    run('chown', '-hR', '100000:100000', $tree);
    run('chown', '100033:100033', "$tree/none");
    return;
}

# A log file of a task.
sub make_log {
    my $path = folder() . '/log';
    open(my $file, '>', $path) or die $!;
    print $file "INFO: a line\n";
    close($file);
    return $path;
}

# What the calls of `Flows` are made with. Options: slow, so that a backup does not come to its end; in_container.
sub real_context {
    my (%options) = @_;
    my %limit = $options{slow} ? ('bandwidth-limit' => 1024) : ();
    my $scfg = real_scfg();
    my $handles = sub {
        my @regions = ([0, SIZE]);
        # What was read is discarded.
        run('cp', folder() . '/disk', folder() . '/fleecing');
        my $handle = IO::File->new(folder() . '/fleecing', 'r+');
        return { 'drive-scsi0' => { size => SIZE, 'bitmap-mode' => 'none', 'file-handle' => $handle,
            'next-dirty-region' => sub { return (shift(@regions) // [])->@* } } };
    };
    my $provider = PVE::Storage::Custom::SnapkeepPlugin->new_backup_provider($scfg, STOREID, $options{log} // sub { });
    return {
        provider => $provider, time => time(), vmid => 100, ctid => 101, storeid => STOREID,
        config => "name: a\n#qmdump#map:scsi0:drive-scsi0:s:raw:\n# \xff\n", vm_info => {%limit},
        ct_info => { directory => folder() . '/tree', sources => ['./'], 'backup-user-id' => 100000,
            'firewall-config' => "[OPTIONS]\n", %limit },
        devices => { 'drive-scsi0' => { size => SIZE } }, device => 'drive-scsi0',
        volumes => sub {
            return { 'drive-scsi0' => { size => SIZE, 'bitmap-mode' => 'none', 'nbd-path' => folder() . '//nbd' } };
        },
        handles => $handles, log => make_log(), in_container => $options{in_container}, told => {},
        plugin => 'PVE::Storage::Custom::SnapkeepPlugin', scfg => $scfg, key => content(key_path()),
    };
}

# The names of what is in the storage.
sub archives {
    my $list = PVE::Storage::Custom::SnapkeepPlugin->list_volumes(STOREID, real_scfg(), undef, ['backup']);
    my @names = map { $_->{volid} =~ m!:(backup/.*)\z! ? "$1" : () } sort { $a->{volid} cmp $b->{volid} } @$list;
    return @names;
}

1;
