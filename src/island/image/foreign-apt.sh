# To be sourced. foreign_apt ARCHITECTURE DIRECTORY: from here on apt-get and apt-cache are about that architecture, with a state of their own
# beneath DIRECTORY: no privilege, and nothing of this machine is changed. The machine's own suite and mirror of Debian are used.
# Its lists are a day old at most.
foreign_apt() {
  mkdir -p "$2/lists/partial" "$2/cache/archives/partial" "$2/dpkg"
  : > "$2/dpkg/status"
  suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
  mirror=$(sed -n 's,^URIs: *\(http[^ ]*/debian\)/* *$,\1,p; s,^deb .*\(http[^ ]*/debian\)/* .*,\1,p' \
    /etc/apt/sources.list /etc/apt/sources.list.d/* 2> /dev/null | head -n 1)
  : "${mirror:=http://deb.debian.org/debian}"
  keyring=/usr/share/keyrings/debian-archive-keyring.gpg
  {
    echo "deb [signed-by=$keyring] $mirror $suite main"
    echo "deb [signed-by=$keyring] $mirror $suite-updates main"
    echo "deb [signed-by=$keyring] $mirror-security $suite-security main"
  } > "$2/sources.list"
  cat > "$2/apt.conf" << CONFIGURATION
Dir::State "$2";
Dir::State::status "$2/dpkg/status";
Dir::Cache "$2/cache";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::sourcelist "$2/sources.list";
APT::Architecture "$1";
APT::Architectures "$1";
APT::Install-Recommends "false";
APT::Sandbox::User "";
Acquire::Languages "none";
CONFIGURATION
  export APT_CONFIG="$2/apt.conf"
  if [ -z "$(find "$2/lists" -name '*Packages*' -mtime -1 2> /dev/null)" ]; then
    apt-get -q update
  fi
}
