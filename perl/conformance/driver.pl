#!/usr/bin/perl -T

# The conformance kit's end in Perl: loads a backup provider class, makes objects of it, and calls their methods as it
# is told, with the values that Proxmox VE's own callers have. Standard input is a socket to the kit; each message is a
# JSON object on one line. Run by `snapkeep conformance`.

use strict;
use warnings;

use Fcntl qw(:mode);
use IO::File;
use IO::Handle;
use JSON::PP ();
use MIME::Base64 qw(decode_base64 encode_base64);
use POSIX ();
use Scalar::Util qw(blessed reftype tainted);

use constant PUNCH_HOLE_AND_KEEP_SIZE => 3;

use constant NEW_MOUNT_NAMESPACE => 0x20000;
use constant NEW_USER_NAMESPACE => 0x10000000;

# Numbers of system calls: fallocate, setns, unshare.
my %numbers = (
    x86_64 => [285, 308, 272],
    aarch64 => [47, 268, 97],
    riscv64 => [47, 268, 97],
    ppc64le => [309, 350, 282],
    s390x => [314, 339, 303],
);

my $json = JSON::PP->new->ascii->allow_nonref;
my $taint = substr($^X, 0, 0);
my %objects;

# What Proxmox VE's tasks set.
$ENV{PATH} = '/sbin:/bin:/usr/sbin:/usr/bin';
delete @ENV{qw(IFS CDPATH ENV BASH_ENV)};
$SIG{INT} = $SIG{TERM} = $SIG{QUIT} = $SIG{HUP} = $SIG{PIPE} = sub { die "interrupted by signal\n"; };

# Both are above 2, so programs that a class executes do not inherit them.
open(my $from, '<&', \*STDIN) or die "no socket: $!\n";
open(my $to, '>&', \*STDIN) or die "no socket: $!\n";
open(STDIN, '<', '/dev/null') or die "no /dev/null: $!\n";
STDOUT->autoflush(1);

# --- What a class may expect to find, if Proxmox VE is not installed here.

# The base class: a method that is missing is an error.
package ConformanceBase {
    our $AUTOLOAD;

    sub AUTOLOAD {
        my ($self) = @_;
        my ($name) = $AUTOLOAD =~ m/([^:]*)\z/;
        return if $name eq 'DESTROY';
        die "the class has no method '$name'\n";
    }
}

# Frees a range of a file that was read (PVE::Storage::Common::deallocate).
sub deallocate {
    my ($file, $offset, $length) = @_;
    syscall(number(0), fileno($file), PUNCH_HOLE_AND_KEEP_SIZE, int($offset), int($length)) == 0
        or die "fallocate failed: $!\n";
    return;
}

sub number {
    my ($which) = @_;
    my $numbers = $numbers{(POSIX::uname())[4]} // die "the system calls of this processor are not known\n";
    return $numbers->[$which];
}

sub is_installed {
    my ($file) = @_;
    return scalar(grep { !ref($_) && -e "$_/$file" } @INC);
}

sub stand_in {
    my ($file, $install) = @_;
    return if is_installed($file);
    $install->();
    $INC{$file} = __FILE__;
    return;
}

BEGIN {
    no strict 'refs';
    stand_in('PVE/BackupProvider/Plugin/Base.pm', sub { @{'PVE::BackupProvider::Plugin::Base::ISA'} = ('ConformanceBase'); });
    stand_in('PVE/Storage/Plugin.pm', sub { *{'PVE::Storage::Plugin::api'} = sub { return 13; }; });
    stand_in('PVE/Storage/Common.pm', sub { *{'PVE::Storage::Common::deallocate'} = \&deallocate; });
}

# --- The conversation.

while (defined(my $line = <$from>)) {
    my $request = $json->decode($line);
    my $answer = eval { { result => answer($request) } };
    $answer = { error => encode_base64(words($@), '') } if !defined($answer);
    send_message($answer);
}
exit(0);

sub send_message {
    my ($message) = @_;
    my $line = $json->encode($message) . "\n";
    local $SIG{PIPE} = 'IGNORE';
    while (length($line)) {
        my $count = syswrite($to, $line);
        next if !defined($count) && $!{EINTR};
        die "the kit is gone: $!\n" if !defined($count);
        substr($line, 0, $count, '');
    }
    return;
}

# An error as bytes.
sub words {
    my ($error) = @_;
    my $text = defined($error) ? "$error" : '';
    utf8::encode($text) if utf8::is_utf8($text);
    $text =~ s/\s+\z//;
    return length($text) ? $text : 'died without a message';
}

sub answer {
    my ($request) = @_;
    my $method = clean($request->{method});
    return load($request) if $method eq 'load';
    return make($request) if $method eq 'new';
    my $object = $objects{ $request->{object} } or die "there is no such object\n";
    my @args = map { value($_) } $request->{args}->@*;
    return in_namespace(clean($request->{namespace}), sub { return scalar($object->$method(@args)); })
        if defined($request->{namespace});
    if ($request->{context} eq 'void') {
        $object->$method(@args);
        return undef;
    }
    my @results = $request->{context} eq 'list' ? $object->$method(@args) : (scalar($object->$method(@args)));
    my $what = $request->{clean} ? "$method returned" : undef;
    return { a => [map { told($_, $what) } @results] };
}

# Calls in a child in a container's user namespace and a mount namespace of its own. What comes back comes through a
# pipe: an error, or plain data. A child that ends without a word is taken for one that did its work, as by Proxmox VE.
sub in_namespace {
    my ($path, $call) = @_;
    open(my $namespace, '<', $path) or die "cannot open $path: $!\n";
    pipe(my $read, my $write) or die "no pipe: $!\n";
    my $pid = fork() // die "cannot fork: $!\n";
    if ($pid == 0) {
        my $told = eval {
            close($read);
            enter($namespace);
            { result => told($call->()) };
        };
        $told = { error => encode_base64(words($@), '') } if !defined($told);
        print {$write} $json->encode($told);
        close($write);
        POSIX::_exit(0);
    }
    close($write);
    my $line = do { local $/ = undef; <$read> };
    waitpid($pid, 0);
    return undef if !defined($line) || !length($line);
    my $told = $json->decode($line);
    die decode_base64($told->{error}) . "\n" if defined($told->{error});
    return undef;
}

sub enter {
    my ($namespace) = @_;
    syscall(number(1), fileno($namespace), NEW_USER_NAMESPACE) == 0 or die "cannot enter the user namespace: $!\n";
    $) = '0 0';
    $( = 0;
    $< = 0;
    $> = 0;
    die "cannot become the container's root user\n" if $< != 0 || $> != 0 || $( != 0;
    syscall(number(2), NEW_MOUNT_NAMESPACE) == 0 or die "cannot make a mount namespace: $!\n";
    return;
}

# Loads a module by its name.
sub load {
    my ($request) = @_;
    my $class = clean($request->{class});
    my $file = "$class.pm";
    $file =~ s!::!/!g;
    require $file;
    return undef;
}

sub make {
    my ($request) = @_;
    my $class = clean($request->{class});
    my ($storage_plugin, $scfg, $storeid) = map { value($_) } $request->{args}->@*;
    my $log = sub {
        my ($level, $message) = @_;
        die "the log function was called without a level and a message\n" if !defined($level) || !defined($message);
        send_message({ log => encode_base64(words($level), ''), message => encode_base64(words($message), '') });
        return;
    };
    my $object = $class->new($storage_plugin, $scfg, $storeid, $log);
    die "$class->new did not return an object\n" if !blessed($object);
    $objects{ $request->{object} } = $object;
    return undef;
}

# --- Values: each is an object with one key, which says what it is.

# Whoever calls a class has clean values, and what comes over the socket is not.
sub clean {
    my ($value) = @_;
    my ($clean) = $value =~ m/\A(.*)\z/s;
    return $clean;
}

sub value {
    my ($told) = @_;
    my ($kind) = keys $told->%*;
    my $value = $told->{$kind};
    return undef if $kind eq 'undefined';
    return 0 + clean($value) if $kind eq 'number';
    return clean(decode_base64($value)) if $kind eq 'bytes';
    # The configurations of guests are the only values that come to classes tainted.
    return clean(decode_base64($value)) . $taint if $kind eq 'configuration';
    return [map { value($_) } $value->@*] if $kind eq 'list';
    return { map { (clean(decode_base64($_)) => value($value->{$_})) } keys $value->%* } if $kind eq 'hash';
    return file($value) if $kind eq 'file';
    return regions(clean(decode_base64($value))) if $kind eq 'regions';
    die "there is no value of kind $kind\n";
}

# A file of the kit's process, opened again in the same mode.
sub file {
    my ($told) = @_;
    my ($path, $flags) = (clean(decode_base64($told->{path})), 0 + clean($told->{flags}));
    my $file = IO::File->new($path, $flags) or die "cannot open $path: $!\n";
    return $file;
}

# `next-dirty-region` of a device: offset and length, or an empty list at the end.
sub regions {
    my ($device) = @_;
    return sub {
        send_message({ region => encode_base64($device, '') });
        my $line = <$from> // die "the kit is gone\n";
        my $answer = $json->decode($line);
        die decode_base64($answer->{error}) . "\n" if defined($answer->{error});
        return () if !defined($answer->{offset});
        my ($offset, $length) = map { clean($_) } $answer->@{qw(offset length)};
        return ("$offset", "$length");
    };
}

# What a class returned. Proxmox VE passes much of it on to commands, where a tainted value ends a restore.
sub told {
    my ($value, $what) = @_;
    return { undefined => 1 } if !defined($value);
    die "$what a tainted value\n" if defined($what) && !ref($value) && tainted($value);
    if (!ref($value)) {
        my $bytes = "$value";
        utf8::encode($bytes) if utf8::is_utf8($bytes);
        return { bytes => encode_base64($bytes, '') };
    }
    die 'an object of ' . blessed($value) . " was returned\n" if blessed($value);
    return { list => [map { told($_, $what) } $value->@*] } if reftype($value) eq 'ARRAY';
    die 'a ' . lc(reftype($value)) . " was returned\n" if reftype($value) ne 'HASH';
    return { hash => { map { (encode_base64(words($_), '') => told($value->{$_}, $what)) } keys $value->%* } };
}
