package Killing;

# Killing the child, or the caller, at a call; and what must not be left then. All that is left behind becomes a
# child of the test, which adopts orphans: so nothing can hide, and nobody else's processes are looked at.

use strict;
use warnings;

use Exporter qw(import);
use POSIX ();
use Time::HiRes qw(CLOCK_MONOTONIC clock_gettime sleep);

use Bench;
use Flows qw(run_step);
use PVE::BackupProvider::Plugin::Snapkeep::Bridge;

our @EXPORT_OK = qw(adopt_orphans arm gather in_user_namespace kill_caller left_behind limited rows signals %counted);

# Only what hangs is waited for so long, in seconds.
use constant LIMIT => 60;

our %counted = (rows => 0, hangs => 0, leftovers => 0);

sub system_call {
    my ($name, @arguments) = @_;
    require 'syscall.ph';
    my $number = main->can($name) // __PACKAGE__->can($name);
    return syscall($number->(), @arguments);
}

sub adopt_orphans {
    # PR_SET_CHILD_SUBREAPER
    system_call('SYS_prctl', 36, 1, 0, 0, 0) == 0 or die "cannot adopt orphans: $!\n";
    return;
}

# Each step of these flows as {flow, step, call, nth (which of its calls), before (steps)}; and each flow's greeting.
# Flows of one name have the same.
sub rows {
    my (@rows, %greeted);
    for my $flow (@_) {
        my ($name, @steps) = @$flow;
        push @rows, { flow => $name, step => $steps[0], call => 'hello', nth => 1, before => [] } if !$greeted{$name}++;
        for my $number (0 .. $#steps) {
            my $step = $steps[$number];
            my @before = grep { !$_->{alone} } @steps[0 .. $number - 1];
            my $nth = 1 + grep { $_->{call} eq $step->{call} } @before;
            push @rows, { flow => $name, step => $step, call => $step->{call}, nth => $nth, before => \@before };
        }
    }
    return @rows;
}

# Runs a sub; dies with "hang" if it does not end.
sub limited {
    my ($code) = @_;
    local $SIG{ALRM} = sub { die "hang\n" };
    my $left = alarm(LIMIT);
    my $result = eval { $code->() };
    my $error = $@;
    alarm($left);
    return $result if $error eq '';
    $counted{hangs}++ if $error eq "hang\n";
    die $error;
}

sub signals { return join(',', map { "$_=" . ($SIG{$_} // '') } grep { !m/^__/ } sort keys %SIG); }

# Runs a sub in a fork in a user namespace, as a container's root; dies with what it died with. A signal to the task is
# passed on to the fork, which is killed once it has told its end, as the caller does it.
sub in_user_namespace {
    my ($code, $context) = @_;
    local ($?, $!);
    pipe(my $ready, my $to_parent) or die $!;
    pipe(my $mapped, my $to_child) or die $!;
    my $pid = fork() // die $!;
    if ($pid == 0) {
        close($ready);
        close($to_child);
        my $told = eval {
            # CLONE_NEWUSER
            system_call('SYS_unshare', 0x10000000) == 0 or die "no user namespace: $!\n";
            syswrite($to_parent, 'u');
            sysread($mapped, my $go, 1);
            POSIX::setgid(0);
            POSIX::setuid(0);
            $code->($context);
            '';
        } // $@;
        $SIG{PIPE} = 'IGNORE';
        syswrite($to_parent, $told);
        POSIX::_exit(0);
    }
    local $SIG{TERM} = sub { kill('TERM', $pid) };
    close($to_parent);
    close($mapped);
    sysread($ready, my $unshared, 1);
    for my $map (qw(uid_map gid_map)) {
        open(my $file, '>', "/proc/$pid/$map") or next;
        syswrite($file, "0 100000 65536\n");
        close($file);
    }
    close($to_child);
    my $told = '';
    while (1) {
        my $count = sysread($ready, $told, 4096, length($told));
        last if defined($count) ? $count == 0 : !$!{EINTR};
    }
    kill('KILL', $pid);
    waitpid($pid, 0);
    die $told if length($told);
    return;
}

# This process is sent a signal as soon as it, or a fork of it, has made a call, before the answer is read. A fork in a
# user namespace may not send one, so somebody waits for its word.
my $armed;

sub arm {
    my ($call, $nth, $signal) = @_;
    my $task = $$;
    pipe(my $read, my $write) or die $!;
    my $pid = fork() // die $!;
    if ($pid == 0) {
        $SIG{TERM} = 'DEFAULT';
        close($write);
        kill($signal, $task) if sysread($read, my $word, 1);
        POSIX::_exit(0);
    }
    $armed = { call => $call, nth => $nth, signal => $signal, task => $task, write => $write };
    return;
}

{
    no warnings 'redefine';
    my $put = \&PVE::BackupProvider::Plugin::Snapkeep::Bridge::put;
    *PVE::BackupProvider::Plugin::Snapkeep::Bridge::put = sub {
        my ($self, $line, $until) = @_;
        $put->($self, $line, $until);
        return if !$armed || $line !~ m/"call":"\Q$armed->{call}\E"/ || --$armed->{nth};
        kill($armed->{signal}, $$) if $armed->{task} == $$;
        syswrite($armed->{write}, 'k');
        return;
    };
}

# Runs the steps of a row in a fork that is as a task is, to be ended by a signal at its call; returns what the step
# died with, '' if it did not, and undef if the fork was killed. `$make` makes the context, `$arm` makes the signal come.
sub kill_caller {
    my ($row, $make, $arm) = @_;
    pipe(my $read, my $write) or die $!;
    my $pid = fork() // die $!;
    if ($pid == 0) {
        close($read);
        alarm(0);
        # Handlers of a task; the standard streams of one.
        $SIG{$_} = sub { die "interrupted by signal\n" } for qw(INT TERM QUIT HUP PIPE);
        my $context = $make->();
        my $ready = eval { run_step($_, $context) for $row->{before}->@*; 1 };
        my $told = $ready ? 'none' : "before the call: $@";
        if ($ready) {
            $arm->();
            $told = eval { run_step($row->{step}, $context); 1 } ? 'ended' : "died $@";
        }
        my $provider = $context->{provider};
        if ($row->{flow} =~ m/\A(?:machine|container)/) {
            my @guest = $row->{flow} =~ m/\Amachine/ ? ($context->{vmid}, 'qemu') : ($context->{ctid}, 'lxc');
            eval { $provider->backup_cleanup(@guest, 0, { error => $told }); 1 } or $told .= ", cleanup: $@";
            eval { $provider->backup_handle_log_file($guest[0], $context->{log}); 1 } or $told .= ", log: $@";
            eval { $provider->job_cleanup(); 1 } or $told .= ", job_cleanup: $@";
        } elsif ($row->{flow} =~ m/\Arestore of a (machine|container)/) {
            my ($sub, $volname) = $1 eq 'machine' ? ('restore_vm_cleanup', $context->{vm_volname})
                : ('restore_container_cleanup', $context->{ct_volname});
            eval { $provider->$sub($volname, {}); 1 } or $told .= ", cleanup: $@";
        }
        syswrite($write, $told);
        POSIX::_exit(0);
    }
    close($write);
    my $told = do { local $/ = undef; <$read> };
    waitpid($pid, 0);
    return length($told // '') ? $told : undef;
}

# Waits until all that was started is gone, but these; kills what stays, and returns it.
sub gather {
    my %kept = map { $_ => 1 } @_;
    my $until = clock_gettime(CLOCK_MONOTONIC) + LIMIT;
    my @left;
    while (1) {
        @left = grep { !$kept{$_} } children();
        return () if !@left;
        last if clock_gettime(CLOCK_MONOTONIC) > $until;
        sleep(0.002) if !grep { waitpid($_, POSIX::WNOHANG()) != 0 } @left;
    }
    kill('KILL', @left);
    waitpid($_, 0) for @left;
    $counted{hangs}++;
    return @left;
}

sub children {
    open(my $file, '<', "/proc/$$/task/$$/children") or die $!;
    my $line = <$file> // '';
    return map { m/\A([0-9]+)\z/ ? "$1" : () } split(' ', $line);
}

# Mounts, and folders for mounts, below the test's folder.
sub left_behind {
    my $folder = folder();
    open(my $file, '<', '/proc/self/mounts') or die $!;
    my @left = map { m/\A\S+ (\Q$folder\E\S*) / ? $1 : () } <$file>;
    push @left, grep { !m!/status\z! } glob("$folder/run/*");
    $counted{leftovers} += @left;
    return @left;
}

1;
