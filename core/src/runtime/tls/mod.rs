//! TLS over a shard's sockets: rustls without any I/O, ours around it.
//!
//! ```text
//!   handshake(socket, session)     both ends prove themselves, within HANDSHAKE
//!
//!   send(data) ─► gather small pieces ─► records ─► socket            at most one CIPHERTEXT in memory
//!   recv(buf)  ◄─ decrypted in place ◄── INCOMING ◄─ socket           and at most one record beyond `buf`
//!
//!   Session      all of it but the socket: it can be sent to another thread, mid-stream
//!   TlsStream    a session and a socket, as a Stream
//! ```
//!
//! Copies, for each byte: out, one into the record that is encrypted and one from rustls into the
//! buffer that the kernel takes, besides the gathering of pieces below a record's length (a
//! header of 40 bytes must not be a record of its own). In, one out of rustls, which decrypts in place,
//! and one into the receiver's buffer. rustls' other API, with buffers of its own, costs one more
//! each way and reads 4 KiB at a time; less than this would need a record layer of our own.

mod handshake;
mod session;
mod step;
mod stream;

#[cfg(test)]
mod tests;

pub(super) use handshake::handshake;
pub(super) use session::Session;
pub use stream::TlsStream;
