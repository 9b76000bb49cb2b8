#!/usr/bin/perl -T

# Callers and arguments that are not as they should be, or not as they are today. docs/TESTING.md names these tests.

use strict;
use warnings;

use Cwd qw(abs_path);
use File::Basename qw(dirname);
use POSIX ();
use Test::More;

use Bench;

my $plugin = 'PVE::Storage::Custom::SnapkeepPlugin';
my $volname = 'backup/' . ARCHIVE;

# What a sub dies with, '' if it does not.
sub died { my ($code) = @_; return eval { $code->(); 1 } ? '' : $@; }

subtest 'a future version of the interface gets the newest that is known, an older one its own' => sub {
    no warnings 'redefine';
    for my $pair ([99, 15], [16, 15], [15, 15], [14, 14], [11, 11]) {
        my ($theirs, $ours) = @$pair;
        local *PVE::Storage::APIVER = sub () { $theirs };
        is($plugin->api(), $ours, "version $theirs");
    }
};

subtest 'unknown keys are ignored' => sub {
    my $provider = provider();
    is(died(sub {
        $provider->job_init(1, { new => 1 });
        $provider->backup_init(100, 'qemu', 1, { new => 1 });
        my $volume = { size => 512, 'bitmap-mode' => 'none', 'nbd-path' => '/run/x', 'bitmap-name' => undef, new => [1] };
        $provider->backup_vm(100, '', { d => $volume }, { new => { deep => 1 }, 'bandwidth-limit' => undef });
        $provider->backup_cleanup(100, 'qemu', 1, { new => 1 });
        $provider->job_hook('a-new-phase', {});
        $provider->backup_hook('a-new-phase', 100, 'qemu', {});
    }), '', 'of callers');
    script(backup_vm => { result => { 'archive-size' => 5, new => 1 } }, backup_init => { result => { 'archive-name' => ARCHIVE, new => 1 } });
    is(died(sub { $provider->backup_init(100, 'qemu', 1); $provider->backup_vm(100, '', {}, {}) }), '', 'of the child');
    script();
    my ($told) = grep { $_->{call} eq 'backup_vm' } calls();
    is_deeply([sort keys $told->{args}->{volumes}->{d}->%*], [qw(bitmap_mode bitmap_name nbd_path size)], 'and not passed on');
};

subtest 'unknown words of the child are refused' => sub {
    my $provider = provider();
    for my $mechanism ("nbd\n", 'a b', '../x', '') {
        script(backup_get_mechanism => { result => { mechanism => $mechanism } });
        like(died(sub { $provider->backup_get_mechanism(100, 'qemu') }), qr/wrong mechanism\n\z/, 'a mechanism');
    }
    script(backup_vm_query_incremental => { result => { d => 'u s e' } });
    like(died(sub { $provider->backup_vm_query_incremental(100, { d => { size => 1 } }) }), qr/wrong bitmap mode\n\z/, 'a bitmap mode');
    script();
};

subtest 'names of archives that are none are refused' => sub {
    my $rest = '2026-01-02T03_04_05Z-0123456789abcdef';
    for my $name ('', '/', '..', "$volname\n", "backup/../$volname", "backup//$volname", 'backup/' . 'x' x 256,
        "backup/vzdump-qemu-100-$rest" . '0' x 255, "backup/vzdump-qemu-100/../101-$rest", "backup/vzdump-qemu--100-$rest",
        "backup/vzdump-qemu-01000-$rest", "backup/vzdump-qemu-99999999999-$rest", "backup/vzdump-open-100-$rest", "backup/vzdump-qemu-100-$rest.vma",
        "backup/vzdump-qemu-1\x{0661}0-$rest", "BACKUP/vzdump-qemu-100-$rest")
    {
        my $shown = $name =~ s/[^ -~]/?/gr;
        like(died(sub { $plugin->parse_volname($name) }), qr/\Aunable to parse/, substr($shown, 0, 60));
    }
    my (undef, undef, $vmid) = $plugin->parse_volname("backup/vzdump-lxc-101-$rest");
    is($vmid, 101, 'a name tells of whom it is, so that nobody else may read it');
    my $provider = provider();
    for my $name ('', '/', '..', "x\ny", 'x/y', '.x', 'x' x 256) {
        script(backup_init => { result => { 'archive-name' => $name } });
        like(died(sub { $provider->backup_init(100, 'qemu', 1) }), qr/\Athe program answered with a wrong archive name\n\z/, 'also from the child');
    }
    script(storage_list => { result => [{ archive => "x\n", size => 1, ctime => 1 }] });
    like(died(sub { $plugin->list_volumes(STOREID, scfg(), undef, ['backup']) }), qr/wrong archive/, 'and in its lists');
    script();
};

subtest 'bandwidth limits are passed on as they are: none, 0, 1 KiB, huge' => sub {
    my $provider = provider();
    for my $limit (undef, 0, 1024, '9007199254740992', 2**53, 1e15) {
        calls();
        $provider->backup_vm(100, '', {}, { 'bandwidth-limit' => $limit });
        my ($told) = grep { $_->{call} eq 'backup_vm' } calls();
        is($told->{args}->{bandwidth_limit}, defined($limit) ? sprintf('%.0f', $limit) : undef, 'a limit of ' . ($limit // 'none'));
    }
};

subtest 'configurations are data: hookscript, args, host paths, bytes that are no text' => sub {
    my $provider = provider();
    my $config = "hookscript: local:snippets/evil.pl\nargs: -incoming exec:/bin/evil\nscsi0: /dev/sda\nmp0: /,mp=/x\n# \xff\0\n";
    my $firewall = "[RULES]\nIN ACCEPT -i \$(reboot)\n\xfe";
    $provider->backup_vm(100, $config, {}, { 'firewall-config' => $firewall });
    my ($told) = grep { $_->{call} eq 'backup_vm' } calls();
    is(MIME::Base64::decode_base64($told->{args}->{guest_config}), $config, 'the configuration goes byte for byte');
    is(MIME::Base64::decode_base64($told->{args}->{firewall_config}), $firewall, 'so does the firewall\'s');
    script(archive_get_guest_config => { result => MIME::Base64::encode_base64($config, '') },
        archive_get_firewall_config => { result => MIME::Base64::encode_base64($firewall, '') });
    is($provider->archive_get_guest_config($volname), $config, 'and comes back so');
    is($provider->archive_get_firewall_config($volname), $firewall, 'both do');
    script();
};

subtest 'a time limit of the caller, by SIGALRM, ends a call' => sub {
    my $provider = provider();
    $provider->job_init(1);
    script(backup_get_mechanism => { hang => 1 });
    my $left = alarm(0);
    my $error = died(sub {
        local $SIG{ALRM} = sub { die "got timeout\n" };
        alarm(1);
        $provider->backup_get_mechanism(100, 'qemu');
    });
    alarm($left);
    is($error, "got timeout\n", 'with what its handler dies with');
    is((grep { $_->{call} eq 'cancelled' } calls()), 1, 'and the child sees the end');
    script();
    my $ran = 0;
    {
        # One that does not die changes nothing.
        local $SIG{ALRM} = sub { $ran++ };
        script(backup_get_mechanism => { signal => 'ALRM' });
        is($provider->backup_get_mechanism(100, 'qemu'), 'nbd', 'one whose handler returns does not');
    }
    is($ran, 1, 'though it runs');
    script();
};

subtest 'cleanups and the log call may come at any time, however often' => sub {
    my $provider = provider();
    calls();
    $provider->job_cleanup();
    $provider->job_cleanup('it failed');
    $provider->backup_cleanup(100, 'qemu', 0, { error => 'x' });
    $provider->backup_cleanup(100, undef, 0, {});
    $provider->backup_handle_log_file(100, '/nowhere/log');
    $provider->restore_vm_cleanup($volname);
    is(calls_of(calls()), '', 'before anything was begun nothing is started');
    $provider->job_init(1);
    $provider->backup_cleanup(999, undef, 0, { error => undef });
    $provider->backup_cleanup(999, undef, 0, { error => ['no text'] });
    $provider->backup_cleanup(999, undef, 0, { error => "\xff\xfe" });
    $provider->backup_handle_log_file(999, undef);
    $provider->backup_handle_log_file(999, '');
    $provider->backup_handle_log_file(999, "/nowhere/\xff");
    $provider->job_cleanup();
    $provider->job_cleanup();
    is(calls_of(calls()), 'job_init backup_cleanup backup_cleanup backup_cleanup job_cleanup job_cleanup', 'they are passed on');
    is_deeply([told_logs()], [], 'and nothing dies or is told');
};

subtest 'a job of a hundred guests of which one fails' => sub {
    my $provider = provider();
    $provider->job_init(1);
    script(backup_vm => { nth => 42, error => 'the disk cannot be read' });
    my @failed;
    for my $vmid (100 .. 199) {
        my $ok = eval {
            $provider->backup_init($vmid, 'qemu', 1);
            $provider->backup_vm($vmid, '', {}, {});
            $provider->backup_cleanup($vmid, 'qemu', 1, {});
            1;
        };
        next if $ok;
        push @failed, $vmid;
        $provider->backup_cleanup($vmid, 'qemu', 0, { error => $@ });
    }
    $provider->job_cleanup();
    is("@failed", '141', 'the others are backed up');
    is((grep { $_->{call} eq 'hello' } calls()), 1, 'by one child');
    script();
};

# In a process of its own: what a locale does to Perl is done at its start.
subtest 'odd locales change nothing' => sub {
    my $compiled = folder() . '/locales';
    mkdir($compiled);
    # Where Debian's sources of locales are, Turkish too, which has another capital of i.
    my $source = '/usr/share/i18n/locales/tr_TR';
    my @more = -e $source && !system('/usr/bin/localedef', '-i', 'tr_TR', '-f', 'UTF-8', "$compiled/tr_TR.UTF-8") ? ('tr_TR.UTF-8') : ();
    diag('without tr_TR.UTF-8: the sources of locales are not installed') if !@more;
    my $perl = untainted($^X);
    my $tests = untainted(abs_path(dirname(__FILE__)));
    for my $locale ('C', 'POSIX', 'C.UTF-8', 'nowhere_XX', @more) {
        local @ENV{qw(LC_ALL LANG LANGUAGE)} = ($locale) x 3;
        local $ENV{LOCPATH} = $compiled if $locale =~ m/tr_TR/;
        for my $test (qw(vm_backup restore)) {
            my @command = ($perl, '-T', '-I', "$tests/lib", '-I', "$tests/..", "$tests/$test.t");
            my $pid = fork() // die $!;
            if ($pid == 0) {
                open(STDOUT, '>', '/dev/null');
                open(STDERR, '>', '/dev/null');
                no warnings 'exec';
                exec { $command[0] } @command;
                POSIX::_exit(127);
            }
            waitpid($pid, 0);
            is($?, 0, "$locale: $test");
        }
    }
};

done_testing();
