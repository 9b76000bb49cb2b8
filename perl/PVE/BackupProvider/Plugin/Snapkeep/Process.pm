package PVE::BackupProvider::Plugin::Snapkeep::Process;

# Starts the program and sees to its end. Callers die in signal handlers at any moment, run with taint
# checks, and count on their $@, $? and $!.

use strict;
use warnings;

use Fcntl qw(O_RDWR);
use POSIX ();
use Time::HiRes qw(CLOCK_MONOTONIC clock_gettime);

# How long a program may take to end by itself, in seconds.
use constant PATIENCE => 10;

# Programs that did not end in time, or whose end nobody waited for; reaped later.
my @unreaped;

# Starts `PROGRAM VERB` with `$stdin` as its standard input and, if given, `$stderr` as its standard error;
# what else it inherits is nothing. A session of its own keeps signals of a terminal or a task's group away,
# so that it can end in order. Returns the process ID; dies if the program cannot be executed.
sub start {
    my ($program, $verb, $stdin, %options) = @_;

    reap_earlier();
    pipe(my $failure, my $to_parent) or die "cannot start $program: $!\n";

    # No handler may run between fork and the moment in which both sides know who they are.
    my $all = POSIX::SigSet->new();
    $all->fillset();
    my $before = POSIX::SigSet->new();
    my $parent = $$;
    my ($pid, $error);
    # A handler whose signal came just before runs after the mask is set, and may die.
    my $died = eval {
        POSIX::sigprocmask(POSIX::SIG_SETMASK(), $all, $before);
        $pid = fork();
        become($program, $verb, $stdin, $to_parent, %options) if defined($pid) && $pid == 0;
        $error = $!;
        push @unreaped, { pid => $pid, owner => $$ } if defined($pid);
        1;
    } ? undef : $@;
    POSIX::_exit(127) if $$ != $parent;
    POSIX::sigprocmask(POSIX::SIG_SETMASK(), $before);
    die $died if defined($died);
    die "cannot start $program: $error\n" if !defined($pid);

    close($to_parent);
    my $number = '';
    while (!defined(my $read = sysread($failure, $number, 16, length($number)))) {
        last if !$!{EINTR};
    }
    if ($number =~ m/^([0-9]+)/) {
        local $! = $1;
        my $reason = "$!";
        end($pid, 0);
        die "cannot start $program: $reason\n";
    }
    return $pid;
}

# The child's side of a start: never returns, and tells the number of an error.
sub become {
    my ($program, $verb, $stdin, $to_parent, %options) = @_;

    for my $name (keys %SIG) {
        next if $name =~ m/^__/;
        $SIG{$name} = 'DEFAULT';
    }
    my $stderr = $options{stderr};
    my $null = POSIX::open('/dev/null', O_RDWR);
    # Away from 0 to 2, which may be closed in the caller and so be any of ours.
    my $input = keep_above_two(fileno($stdin));
    my $output = keep_above_two($null);
    my $messages = defined($stderr) ? keep_above_two(fileno($stderr)) : $output;
    my $report = keep_above_two(fileno($to_parent));
    POSIX::dup2($input, 0);
    POSIX::dup2($output, 1);
    POSIX::dup2($messages, 2);
    close_others($report);
    open(my $told, '>&=', $report) or POSIX::_exit(127);
    fcntl($told, Fcntl::F_SETFD(), Fcntl::FD_CLOEXEC());

    POSIX::setsid() if $options{session};
    chdir('/');
    %ENV = (PATH => '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL => 'C');
    my $none = POSIX::SigSet->new();
    POSIX::sigprocmask(POSIX::SIG_SETMASK(), $none);
    no warnings 'exec';
    exec { $program } $program, $verb;
    syswrite($told, 0 + $!);
    POSIX::_exit(127);
}

sub keep_above_two {
    my ($fd) = @_;
    my $copy = $fd;
    while (defined($copy) && $copy <= 2) {
        $copy = POSIX::dup($copy);
    }
    return $copy;
}

# Locks, pipes to the terminal and files of the caller must not live on in a child.
sub close_others {
    my ($kept) = @_;
    opendir(my $folder, '/proc/self/fd') or return;
    my @open = map { m/^([0-9]+)$/ ? $1 : () } readdir($folder);
    closedir($folder);
    for my $fd (@open) {
        POSIX::close($fd) if $fd > 2 && $fd != $kept;
    }
    return;
}

# Waits until the process has ended, at most `$patience` seconds (PATIENCE), then kills it. Returns how it
# ended, in words, or undef if nobody can tell.
sub end {
    my ($pid, $patience) = @_;

    my $until = clock_gettime(CLOCK_MONOTONIC) + ($patience // PATIENCE);
    my $pause = 0.002;
    my ($ended, $how) = try_reap($pid);
    while (!$ended && clock_gettime(CLOCK_MONOTONIC) < $until) {
        select(undef, undef, undef, $pause);
        $pause *= 2 if $pause < 0.1;
        ($ended, $how) = try_reap($pid);
    }
    if (!$ended) {
        kill('KILL', $pid);
        # A process in an uninterruptible wait outlives even that: it is reaped later.
        for (1 .. 10) {
            ($ended, $how) = try_reap($pid);
            last if $ended;
            select(undef, undef, undef, 0.05);
        }
        leave($pid) if !$ended;
    }
    return $how;
}

# Whether the process has ended (also if somebody else reaped it), and how, in words.
sub try_reap {
    my ($pid) = @_;
    local ($?, $!);
    my $got = waitpid($pid, POSIX::WNOHANG());
    return (0, undef) if $got == 0;
    @unreaped = grep { $_->{pid} != $pid } @unreaped;
    return (1, undef) if $got != $pid;
    my $signal = $? & 127;
    my $status = $? >> 8;
    return (1, $signal ? "signal $signal" : "exit status $status");
}

sub reap_earlier {
    @unreaped = grep { $_->{owner} == $$ } @unreaped;
    try_reap($_) for map { $_->{pid} } grep { $_->{over} } @unreaped;
    return;
}

# The process will end by itself: it is reaped when another is started.
sub leave {
    my ($pid) = @_;
    $_->{over} = 1 for grep { $_->{pid} == $pid } @unreaped;
    return;
}

1;
