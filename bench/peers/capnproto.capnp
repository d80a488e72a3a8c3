# What the Cap'n Proto peer offers: a message and its reply, and a stream of messages.
@0xb62c3d2f4a7e9a11;

interface Peer {
  ping @0 (message :Data) -> (message :Data);
  push @1 (message :Data) -> stream;
}
