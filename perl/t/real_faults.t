#!/usr/bin/perl -T

# What goes wrong on Proxmox VE's side of a job, with the real program. docs/TESTING.md names these tests.

use strict;
use warnings;

use IO::File;
use JSON;
use POSIX ();
use Test::More;

use Bench;
use Killing qw(gather left_behind);
use Real qw(archives content needs output_of real_context server);

needs('real_faults', '/usr/bin/qemu-nbd');
alarm(600);

my $disk = content(folder() . '/disk');
my @logged;
my $vmid = 200;

# A provider and what its calls are made with. Each backup is of another guest: those of one are a second apart.
sub context { my $context = real_context(log => sub { push @logged, "$_[0]: $_[1]" }, @_); $context->{vmid} = $vmid++; return $context; }

sub died { my ($code) = @_; return eval { $code->(); 1 } ? '' : $@; }

# Up to and with the data of a machine; the archive.
sub back_up {
    my ($context, %of) = @_;
    my $provider = $context->{provider};
    $provider->job_init(time()) if !$of{in_job};
    my $name = $provider->backup_init($context->{vmid}, 'qemu', time())->{'archive-name'};
    $provider->backup_vm($context->{vmid}, $of{config} // "name: a\n", $of{volumes} // $context->{volumes}->(), $of{info} // {});
    return "backup/$name";
}

sub show { my ($name, @more) = @_; return output_of('show', path_of($name), @more); }

# The name in the repository.
sub path_of {
    my ($kind, $guest, $time, $random) = $_[0] =~ m!vzdump-(qemu|lxc)-(\d+)-(\S+)-([0-9a-f]{16})\z!;
    return 'pve/' . ($kind eq 'qemu' ? 'vm' : 'ct') . "/$guest/" . $time =~ tr/_/:/r . "-$random";
}

sub is_there { my ($name) = @_; return scalar(grep { $_ eq $name } archives()); }

# The disk of an archive.
sub restored {
    my ($name) = @_;
    my $provider = context()->{provider};
    $provider->restore_vm_init($name);
    my $bytes = content($provider->restore_vm_volume_init($name, 'drive-scsi0', {})->{'qemu-img-path'});
    $provider->restore_vm_volume_cleanup($name, 'drive-scsi0', {});
    $provider->restore_vm_cleanup($name);
    return $bytes;
}

subtest 'backup_cleanup with success dies, then comes without: the archive stays' => sub {
    my $context = context();
    my $name = back_up($context);
    kill('KILL', $context->{provider}->{bridge}->{pid});
    waitpid($context->{provider}->{bridge}->{pid}, 0);
    isnt(died(sub { $context->{provider}->backup_cleanup($context->{vmid}, 'qemu', 1, {}) }), '', 'it dies');
    is(died(sub { $context->{provider}->backup_cleanup($context->{vmid}, 'qemu', 0, { error => 'x' }) }), '', 'the second does not');
    $context->{provider}->job_cleanup();
    ok(is_there($name), 'the archive is there');
    ok(restored($name) eq $disk, 'and whole');
};

subtest 'pruning or protecting fails after backup_vm: the archive is kept and says so' => sub {
    my $context = context();
    my $name = back_up($context);
    $context->{provider}->backup_cleanup($context->{vmid}, 'qemu', 0, { error => "error pruning backups - token abc\nno space\n" });
    $context->{provider}->job_cleanup();
    ok(is_there($name), 'it is kept');
    like(show($name), qr/no space/, 'with the error of the job');
    unlike(show($name), qr/abc/, 'without what looks like a secret');
    ok((grep { m/^warn: .*is kept although the job failed/ } @logged), 'which the task is told, too');
};

subtest 'job_cleanup twice, and without job_init' => sub {
    my $provider = context()->{provider};
    $provider->job_cleanup();
    $provider->job_init(time());
    is(died(sub { $provider->job_cleanup() for 1 .. 2; $provider->job_cleanup('x') }), '', 'is nothing');
    is(died(sub { back_up({ context()->%*, provider => $provider }) }), '', 'the next job works');
    $provider->job_cleanup();
};

subtest 'backup_cleanup of an undefined type, of an unknown guest, before backup_init' => sub {
    my $context = context();
    my $name = back_up($context);
    my @before = archives();
    my $provider = $context->{provider};
    @logged = ();
    $provider->backup_cleanup(@$_, 0, { error => 'x' }) for [999, undef], [$context->{vmid} + 500, 'qemu'], [999, 'odd'];
    is_deeply([archives()], \@before, 'removes nothing');
    ok($provider->backup_cleanup($context->{vmid}, 'qemu', 1, {}), 'and leaves the guest at hand');
    $provider->job_cleanup();
    my $fresh = context()->{provider};
    $fresh->job_init(time());
    is(died(sub { $fresh->backup_cleanup(100, undef, 0, {}) }), '', 'nor does it die before a guest');
    like(died(sub { $fresh->backup_cleanup(100, 'qemu', 1, {}) }), qr/guest 100/, 'but a success of nothing is none');
    is_deeply([archives()], \@before, 'all are still there');
};

subtest 'log files: missing, a folder, a FIFO, huge, not UTF-8, with secrets' => sub {
    my $folder = folder() . '/logs';
    mkdir($folder);
    POSIX::mkfifo("$folder/fifo", 0600);
    my $huge = IO::File->new("$folder/huge", 'w');
    print $huge "the first line\n";
    seek($huge, 3 * 1024 * 1024 * 1024, 0);
    print $huge "\nthe last line\n";
    close($huge);
    my $bytes = IO::File->new("$folder/bytes", 'w');
    print $bytes "INFO: b\xfccher\nINFO: password=hunter2\nINFO: the end\n";
    close($bytes);
    for my $log ("$folder/absent", $folder, "$folder/fifo", "$folder/huge", "$folder/bytes", "$folder/\xff", '/proc/self/mem', undef) {
        my $context = context();
        my $name = back_up($context);
        $context->{provider}->backup_cleanup($context->{vmid}, 'qemu', 1, {});
        is(died(sub { $context->{provider}->backup_handle_log_file($context->{vmid}, $log) }), '', 'none kills the job');
        $context->{provider}->job_cleanup();
        my $kept = show($name, '--log') // '';
        like($kept, qr/the first line.*left out.*the last line/s, 'of a huge one both ends are kept') if ($log // '') =~ m/huge/;
        cmp_ok(length($kept), '<', 2 * 1024 * 1024, 'and no more') if ($log // '') =~ m/huge/;
        next if ($log // '') !~ m/bytes/;
        like($kept, qr/b\xef\xbf\xbdcher.*the end/s, 'what is no text is shown as such');
        unlike($kept, qr/hunter2/, 'what looks like a secret is left out');
    }
};

subtest 'backup_vm dies halfway: there is no archive, and the next one is whole' => sub {
    my @before = archives();
    my $context = context();
    # A disk that ends before its size.
    open(my $short, '>', folder() . '/short') or die $!;
    syswrite($short, substr($disk, 0, 6 * 1024 * 1024));
    close($short);
    my $handle = IO::File->new(folder() . '/short', 'r+');
    my @regions = ([0, length($disk)]);
    my $volumes = { 'drive-scsi0' => { size => length($disk), 'bitmap-mode' => 'none', 'file-handle' => $handle,
        'next-dirty-region' => sub { return (shift(@regions) // [])->@* } } };
    like(died(sub { back_up($context, volumes => $volumes) }), qr/drive-scsi0[^\n]*\n\z/, 'it names the disk');
    $context->{provider}->backup_cleanup($context->{vmid}, 'qemu', 0, { error => 'x' });
    is_deeply([archives()], \@before, 'nothing is listed');
    my $next = back_up($context, in_job => 1);
    $context->{provider}->backup_cleanup($context->{vmid}, 'qemu', 1, {});
    $context->{provider}->job_cleanup();
    ok(restored($next) eq $disk, 'the next one is whole');
};

subtest 'unknown modes are refused by name, unknown keys are not' => sub {
    my $context = context();
    my $volumes = $context->{volumes}->();
    $volumes->{'drive-scsi0'}->{$_} = 'x' for qw(new newer);
    isnt(back_up($context, volumes => $volumes, info => { 'new-key' => {} }), '', 'keys are ignored');
    $volumes->{'drive-scsi0'}->{'bitmap-mode'} = 'half';
    my $other = context();
    like(died(sub { back_up($other, volumes => $volumes) }), qr/drive-scsi0.*"half"/, 'a bitmap mode');
    $other->{provider}->backup_cleanup($other->{vmid}, 'qemu', 0, {});
    is(scalar($other->{provider}->backup_get_mechanism(7, 'openvz')), undef, 'a guest type has no mechanism');
    like(died(sub { $other->{provider}->backup_init(7, 'openvz', time()) }), qr/"openvz"/, 'and no backup');
};

subtest 'two jobs for one guest at once: two archives, both whole' => sub {
    my ($first, $second) = (context(), context());
    $second->{vmid} = $first->{vmid};
    my @before = archives();
    $_->{provider}->job_init(time()) for $first, $second;
    my @names = map { 'backup/' . $_->{provider}->backup_init($_->{vmid}, 'qemu', time())->{'archive-name'} } $first, $second;
    isnt($names[0], $names[1], 'they have different names');
    my $pid = fork() // die $!;
    if ($pid == 0) {
        # A job is a process of its own.
        my $context = context();
        $context->{vmid} = $first->{vmid};
        my $done = eval { back_up($context); $context->{provider}->backup_cleanup($context->{vmid}, 'qemu', 1, {}); 1 };
        POSIX::_exit($done ? 0 : 1);
    }
    for my $context ($first, $second) {
        $context->{provider}->backup_vm($context->{vmid}, "name: a\n", $context->{volumes}->(), {});
        $context->{provider}->backup_cleanup($context->{vmid}, 'qemu', 1, {});
        $context->{provider}->job_cleanup();
    }
    waitpid($pid, 0);
    is($?, 0, 'one of another process is a third');
    my %before = map { $_ => 1 } @before;
    my @new = grep { !$before{$_} } archives();
    is(scalar(@new), 3, 'all are listed');
    ok(restored($_) eq $disk, 'and whole') for @new;
};

subtest 'a job of many guests of which one fails' => sub {
    my $provider = context()->{provider};
    $provider->job_init(time());
    my (@names, @failed);
    for my $number (1 .. 12) {
        my $context = { context()->%*, provider => $provider };
        my $volumes = $context->{volumes}->();
        $volumes->{'drive-scsi0'}->{'nbd-path'} = '/nowhere/nbd' if $number == 5;
        my $name = eval { back_up($context, in_job => 1, volumes => $volumes) };
        my $error = $@;
        $provider->backup_cleanup($context->{vmid}, 'qemu', defined($name) ? 1 : 0, { error => $error });
        push @names, $name if defined($name);
        push @failed, $error if !defined($name);
    }
    $provider->job_cleanup();
    like("@failed", qr/\A[^\n]*drive-scsi0[^\n]*\n\z/, 'one fails by the name of its disk');
    is((grep { is_there($_) } $names[0], $names[-1]), 2, 'the others are there') if @names == 11;
    is(scalar(@names), 11, 'all of them');
};

subtest 'bandwidth limits: none, 0, huge' => sub {
    for my $limit (undef, 0, '0', 2**53, '18446744073709551615') {
        my $context = context();
        my $name;
        is(died(sub { $name = back_up($context, info => { 'bandwidth-limit' => $limit }) }), '', 'a limit of ' . ($limit // 'none'));
    }
};

subtest 'hookscript, args and host paths in configurations are kept and not followed' => sub {
    my $marker = folder() . '/marker';
    my $config = "hookscript: local:snippets/x.pl\nargs: -incoming exec:touch $marker\nscsi1: /dev/sda\nname: \xff\xfe\n#\$(touch $marker)\n";
    my $firewall = "[RULES]\n\$(touch $marker)\n\xfe";
    my $context = context();
    my $name = back_up($context, config => $config, info => { 'firewall-config' => $firewall });
    is($context->{provider}->archive_get_guest_config($name), $config, 'the configuration comes back byte for byte');
    is($context->{provider}->archive_get_firewall_config($name), $firewall, 'so does the firewall\'s');
    ok(!-e $marker, 'nothing of it ran');
};

subtest 'calls for archives that are none, or another guest\'s' => sub {
    my $context = context();
    my $name = back_up($context);
    my $provider = $context->{provider};
    my ($other) = $name =~ s/qemu-\d+/qemu-999/r;
    for my $bad ($other, "$name\n", "backup/../$name", "$name/x", 'backup/' . 'x' x 300, "$name\0", 'backup/') {
        my $shown = substr($bad =~ s/[^ -~]/?/gr, 0, 40);
        for my $sub (qw(archive_get_guest_config restore_get_mechanism restore_vm_init restore_container_init)) {
            like(died(sub { $provider->$sub($bad) }), qr/\A[^\n]+\n\z/, "$sub of $shown");
        }
    }
    like(died(sub { $provider->restore_container_init($name, STOREID, {}) }), qr/\A[^\n]+\n\z/, 'a machine is no container');
};

is_deeply([left_behind()], [], 'no mount is left');
is_deeply([gather(server())], [], 'no process is left');

done_testing();
