package PVE::BackupProvider::Plugin::Snapkeep::Bridge;

# The conversation with `snapkeep provider`, which docs/BRIDGE.md describes: one JSON object on a line for each
# message, over a socket pair. The child is started by the first call that needs it, and belongs to the process
# that started it; after a fork another is started, but for calls over the inherited socket.

use strict;
use warnings;

use IO::Handle;
use JSON;
use Socket qw(AF_UNIX MSG_DONTWAIT MSG_NOSIGNAL PF_UNSPEC SOCK_STREAM);
use Time::HiRes qw(CLOCK_MONOTONIC clock_gettime);

use PVE::BackupProvider::Plugin::Snapkeep::Clean;
use PVE::BackupProvider::Plugin::Snapkeep::Process;
use PVE::BackupProvider::Plugin::Snapkeep::Settings;

use constant VERSION => 1;
# The longest message, in bytes with its newline.
use constant MESSAGE_MAX => 16 * 1024 * 1024;
use constant READ_SIZE => 64 * 1024;
# A program that does not even answer the first call within so many seconds is none of ours.
use constant HELLO_LIMIT => 30;

# For a storage; starts nothing. `$log` is a sub of level and message, or undef for silence.
sub new {
    my ($class, $scfg, $storeid, $log) = @_;
    my $self = { scfg => $scfg, storeid => $storeid, log => $log, number => 0, resume => [] };
    return bless($self, $class);
}

# Makes a call and returns its result; dies with the child's error, a line. Options:
#   limit      seconds for all of the call, after which the child is killed
#   quiet      what the child logs is dropped
#   inherited  over the socket of the process that forked this one
#   watch      {handle, ready}: `ready` is called when `handle` is readable; it returns false to be called no more
sub call {
    my ($self, $name, $args, %options) = @_;
    my ($result, $error) = $self->attempt($name, $args, %options);
    die $error if defined($error);
    return $result;
}

# Like `call`, but an error of the child, or the lack of one, is the second value. Only what a signal handler or
# the log function dies with is died with.
sub attempt {
    my ($self, $name, $args, %options) = @_;

    local ($@, $!, $?);
    my $until = defined($options{limit}) ? clock_gettime(CLOCK_MONOTONIC) + $options{limit} : undef;
    my $result = eval {
        $self->reach($until, $options{inherited});
        $self->converse($name, $args, $until, %options);
    };
    my $died = $@;
    return ($result, undef) if !$died;
    if (ref($died) eq 'HASH' && defined($died->{snapkeep})) {
        return (undef, "$died->{snapkeep}\n") if $died->{answered};
        $self->abandon();
        return (undef, about($args) . "$died->{snapkeep}\n");
    }
    # The call is not wanted any more. The end of the socket cancels it.
    $self->abandon();
    die $died;
}

# Whether a child of this process is there.
sub is_started {
    my ($self) = @_;
    return $self->{socket} && $self->{owner} == $$;
}

# Calls to be repeated to another child of this process, should this one end early: [[NAME, ARGS], …].
sub resume_with {
    my ($self, @calls) = @_;
    $self->{resume} = \@calls;
    $self->{resume_in} = $$;
    return;
}

# A process that inherits the socket is about to use it: if it is killed in the middle of a line, we get the rest.
sub lend {
    my ($self) = @_;
    $self->{lent} = 1;
    return;
}

# Ends the child and waits for it, for so many seconds if that is given.
sub finish {
    my ($self, $patience) = @_;
    $self->abandon($patience) if $self->is_started();
    return;
}

sub DESTROY {
    my ($self) = @_;
    local ($@, $!, $?);
    eval { $self->finish() };
    return;
}

# An error of ours or of the child, without newline; `answered` if the conversation can go on.
sub fail {
    my ($message, $answered) = @_;
    die { snapkeep => $message, answered => $answered };
}

# Sees to it that there is a socket to a child.
sub reach {
    my ($self, $until, $inherited) = @_;

    if ($inherited && $self->{socket}) {
        $self->{in} = '' if $self->{reader} != $$;
        $self->{reader} = $$;
        return;
    }
    fail('the process that started the program is not there any more') if $inherited;
    if ($self->{socket} && $self->{owner} == $$) {
        my ($ended) = PVE::BackupProvider::Plugin::Snapkeep::Process::try_reap($self->{pid});
        return if !$ended;
    }
    # Of an earlier child, or of the process that we were forked from.
    delete $self->@{qw(socket pid lent)};

    my $program = eval { PVE::BackupProvider::Plugin::Snapkeep::Settings::program($self->{scfg}) };
    fail(one_line($@)) if !defined($program);
    socketpair(my $ours, my $theirs, AF_UNIX, SOCK_STREAM, PF_UNSPEC) or fail("cannot make a socket pair: $!");
    my $pid = eval {
        PVE::BackupProvider::Plugin::Snapkeep::Process::start($program, 'provider', $theirs, session => 1);
    };
    if (!defined($pid)) {
        my $error = $@;
        die $error if $error !~ m/\Acannot start /;
        fail(one_line($error));
    }
    close($theirs);
    $self->@{qw(socket pid owner reader program in)} = ($ours, $pid, $$, $$, $program, '');
    $self->greet($until);
    return;
}

sub greet {
    my ($self, $until) = @_;

    my $limit = clock_gettime(CLOCK_MONOTONIC) + HELLO_LIMIT;
    $limit = $until if defined($until) && $until < $limit;
    my $settings = PVE::BackupProvider::Plugin::Snapkeep::Settings::settings($self->{scfg}, $self->{storeid});
    my $args = { version => VERSION, pid => $$, storage => $self->{storeid}, settings => $settings };
    my $resume = $self->{resume}->@* && $self->{resume_in} == $$ ? $self->{resume} : [];
    eval {
        my $answer = $self->converse('hello', $args, $limit);
        my $version = ref($answer) eq 'HASH' ? $answer->{version} // 'none' : 'none';
        fail("$self->{program} speaks version $version of the bridge, not " . VERSION) if $version ne VERSION;
        $self->converse($_->[0], $_->[1], $until) for @$resume;
    };
    if (my $died = $@) {
        # Without all of that there is nothing to go on with, also if it was refused in words: the next call
        # starts another child.
        $died->{answered} = 0 if ref($died) eq 'HASH';
        die $died;
    }
    return;
}

# One call over the socket.
sub converse {
    my ($self, $name, $args, $until, %options) = @_;

    my $id = "$$-" . ++$self->{number};
    my $line = eval { JSON->new->utf8->encode({ id => $id, call => $name, args => $args }) };
    fail("$name: " . one_line($@), 1) if !defined($line);
    $line .= "\n";
    fail("$name: the call is too long", 1) if length($line) > MESSAGE_MAX;
    $self->{during} = $name;
    $self->put($line, $until);
    while (1) {
        my $message = $self->next_message($until, $options{watch});
        my $of = $message->{id} // '';
        # The child could not read the call, and says why before it ends.
        fail("$name: " . error_text($message->{error})) if $of eq '' && $message->{error};
        # Answers to a call of a process that was killed.
        next if $of ne $id;
        if (exists($message->{log})) {
            $self->tell($message->{log}, $message->{message}) if !$options{quiet};
            next;
        }
        fail(error_text($message->{error}), 1) if $message->{error};
        return $message->{result};
    }
}

sub put {
    my ($self, $line, $until) = @_;

    my $sent = 0;
    while ($sent < length($line)) {
        my $part = substr($line, $sent, READ_SIZE);
        # No SIGPIPE: its handler in a task says that the user interrupted it.
        my $count = send($self->{socket}, $part, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (defined($count)) {
            $sent += $count;
        } elsif ($!{EAGAIN}) {
            $self->wait_for(1, $until);
        } elsif (!$!{EINTR}) {
            $self->ended_early();
        }
    }
    return;
}

# The next message of the child.
sub next_message {
    my ($self, $until, $watch) = @_;

    while (1) {
        my $end = index($self->{in}, "\n", $self->{searched} // 0);
        if ($end >= 0) {
            my $line = substr($self->{in}, 0, $end + 1, '');
            $self->{searched} = 0;
            my $message = eval { JSON->new->utf8->decode($line) };
            return $message if ref($message) eq 'HASH';
            # The rest of a line whose reader was killed.
            next if delete $self->{lent};
            fail("$self->{program} answered $self->{during} with what is no message");
        }
        $self->{searched} = length($self->{in});
        fail("$self->{program} answered $self->{during} with too long a message")
            if $self->{searched} >= MESSAGE_MAX;
        $self->wait_for(0, $until, $watch);
        # Read and kept by one operation: no signal handler can lose what was read.
        my $count = sysread($self->{socket}, $self->{in}, READ_SIZE, $self->{searched});
        if (!defined($count)) {
            next if $!{EINTR} || $!{EAGAIN};
            $self->ended_early();
        }
        $self->ended_early() if $count == 0;
    }
}

# Waits until the socket can be written, or read.
sub wait_for {
    my ($self, $writing, $until, $watch) = @_;

    my $fd = fileno($self->{socket});
    while (1) {
        my ($readable, $writable) = ('', '');
        vec($writing ? $writable : $readable, $fd, 1) = 1;
        my $also = $watch && $watch->{handle} ? fileno($watch->{handle}) : undef;
        vec($readable, $also, 1) = 1 if defined($also);
        my $left;
        if (defined($until)) {
            $left = $until - clock_gettime(CLOCK_MONOTONIC);
            $self->too_slow() if $left <= 0;
        }
        my $count = select($readable, $writable, undef, $left);
        next if $count <= 0;
        if (defined($also) && vec($readable, $also, 1) && !$watch->{ready}->()) {
            delete $watch->{handle};
        }
        return if vec($writing ? $writable : $readable, $fd, 1);
    }
}

sub too_slow {
    my ($self) = @_;
    kill('KILL', $self->{pid}) if $self->{owner} == $$;
    fail("$self->{program} did not answer $self->{during} in time");
}

sub ended_early {
    my ($self) = @_;
    my $how = $self->{owner} == $$ ? PVE::BackupProvider::Plugin::Snapkeep::Process::end($self->{pid}) : undef;
    fail("$self->{program} ended early" . (defined($how) ? " ($how)" : '') . ", during $self->{during}");
}

# Ends the conversation. The socket is shut down, not only closed, because other processes may hold copies of it.
sub abandon {
    my ($self, $patience) = @_;
    my ($socket, $pid) = delete $self->@{qw(socket pid)};
    delete $self->{lent};
    return if !$socket;
    return if $self->{owner} != $$ && $self->{reader} != $$;
    shutdown($socket, 2);
    close($socket);
    PVE::BackupProvider::Plugin::Snapkeep::Process::end($pid, $patience) if $self->{owner} == $$;
    return;
}

sub tell {
    my ($self, $level, $message) = @_;
    return if !$self->{log};
    ($level) = $level =~ m/\A(info|warn|err)\z/;
    my $text = PVE::BackupProvider::Plugin::Snapkeep::Clean::printable($message);
    $self->{log}->($level // 'err', $text) if length($text);
    return;
}

# What a call is about, for the beginning of an error that the child did not word.
sub about {
    my ($args) = @_;
    my $of = defined($args->{vmid}) ? "guest $args->{vmid}" : $args->{volname} // $args->{archive};
    return defined($of) ? PVE::BackupProvider::Plugin::Snapkeep::Clean::printable($of) . ': ' : '';
}

sub error_text {
    my ($error) = @_;
    my $text = ref($error) eq 'HASH' ? $error->{message} : $error;
    return PVE::BackupProvider::Plugin::Snapkeep::Clean::printable($text);
}

sub one_line {
    my ($text) = @_;
    $text =~ s/\s+\z//;
    return PVE::BackupProvider::Plugin::Snapkeep::Clean::printable($text);
}

1;
