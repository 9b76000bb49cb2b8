package PVE::BackupProvider::Plugin::Snapkeep::Clean;

# Values on their way between callers and the child: bytes and text, and what the child says, checked and
# untainted. Callers pass it on to commands, and Perl's taint spreads over a whole statement, so each capture is
# a statement of its own.

use strict;
use warnings;

use MIME::Base64 qw(decode_base64 encode_base64);

# Text of a caller as characters: callers have bytes of UTF-8 or characters. Dies if it is neither.
sub text {
    my ($value) = @_;
    return undef if !defined($value);
    my $text = "$value";
    return $text if $text =~ m/\A[\x00-\x7f]*\z/ || $text =~ m/[^\x00-\xff]/;
    my $characters = utf8::is_utf8($text);
    my $bytes = $text;
    utf8::downgrade($bytes);
    return $bytes if utf8::decode($bytes);
    return $text if $characters;
    die 'not valid UTF-8: ' . printable($value) . "\n";
}

# A whole number of a caller with all its digits: Perl writes large ones that were computed with an exponent.
sub digits {
    my ($value) = @_;
    return defined($value) && "$value" =~ m/e\+/i ? sprintf('%.0f', $value) : $value;
}

# Bytes of a caller as base64, byte for byte; characters that are no bytes as UTF-8.
sub to_base64 {
    my ($value) = @_;
    return undef if !defined($value);
    my $bytes = "$value";
    utf8::encode($bytes) if $bytes =~ m/[^\x00-\xff]/;
    utf8::downgrade($bytes);
    return encode_base64($bytes, '');
}

# Bytes of the child.
sub from_base64 {
    my ($value) = @_;
    return undef if !defined($value);
    my $bytes = decode_base64($value);
    my ($clean) = $bytes =~ m/\A(.*)\z/s;
    return $clean;
}

# Text of the child, as bytes of UTF-8, without control characters: for logs and errors.
sub printable {
    my ($value) = @_;
    my $text = $value // '';
    $text =~ s/[\x00-\x08\x0a-\x1f\x7f]/ /g;
    utf8::encode($text) if utf8::is_utf8($text);
    my ($clean) = $text =~ m/\A(.*)\z/s;
    return $clean;
}

# A whole number that is not negative.
sub number {
    my ($value, $what) = @_;
    my ($digits) = ($value // '') =~ m/\A([0-9]{1,19})\z/;
    die "the program answered with a wrong $what\n" if !defined($digits);
    my $number = 0 + $digits;
    return $number;
}

# A name: of an archive, a device, a mechanism.
sub name {
    my ($value, $what) = @_;
    my ($name) = ($value // '') =~ m/\A([A-Za-z0-9][A-Za-z0-9._-]{0,254})\z/;
    die "the program answered with a wrong $what\n" if !defined($name);
    return $name;
}

# An absolute path, as bytes.
sub path {
    my ($value, $what) = @_;
    my $bytes = $value // '';
    utf8::encode($bytes) if utf8::is_utf8($bytes);
    my ($path) = $bytes =~ m!\A(/[^\0\n]+)\z!;
    die "the program answered with a wrong $what\n" if !defined($path);
    return $path;
}

1;
