// SPDX-License-Identifier: Apache-2.0 OR MIT

use super::{HandshakeError, SECURITY_NONE, VERSION_LEN, Version, write_text};
use crate::input::take;

/// What a viewer said until it waits for `ServerInit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Established {
    /// The version that both sides speak.
    pub version: Version,
    /// Whether the viewer shares the desktop with others (`ClientInit`, RFC 6143, 7.3.1).
    pub shared: bool,
}

/// The server's side of a handshake. It keeps no bytes: what a call leaves in its input (fewer than 12 bytes), the
/// caller passes again with more behind.
#[derive(Debug)]
pub struct ServerHandshake {
    step: Step,
    refusal: Option<String>,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Version,
    Security(Version),
    ClientInit(Version),
}

impl ServerHandshake {
    /// Begins a handshake; appends the server's version to `out`.
    #[must_use]
    pub fn new(out: &mut Vec<u8>) -> Self {
        out.extend_from_slice(Version::V3_8.message());
        Self {
            step: Step::Version,
            refusal: None,
        }
    }

    /// Begins a handshake that ends with a refusal that the viewer can show. Each viewer gets it in the form of its
    /// version (RFC 6143, 7.1.2).
    #[must_use]
    pub fn refuse(out: &mut Vec<u8>, reason: String) -> Self {
        Self {
            refusal: Some(reason),
            ..Self::new(out)
        }
    }

    /// Takes what the viewer sent off `input`, and appends answers to `out`. `None`: more has to come. When it is
    /// done, the server sends [`ServerInit`](super::ServerInit).
    ///
    /// # Errors
    /// Where the viewer does not follow the protocol, or is refused: what is in `out` is still to be sent, then the
    /// connection ends.
    pub fn advance(
        &mut self,
        input: &mut &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<Established>, HandshakeError> {
        loop {
            self.step = match self.step {
                Step::Version => {
                    let Some(message) = take::<VERSION_LEN>(input) else {
                        return Ok(None);
                    };
                    let version = Version::of_peer(&message)?;
                    if let Some(reason) = self.refusal.take() {
                        write_refusal(version, &reason, out);
                        return Err(HandshakeError::Refusing(reason));
                    }
                    match version {
                        Version::V3_3 => {
                            out.extend_from_slice(&u32::from(SECURITY_NONE).to_be_bytes());
                            Step::ClientInit(version)
                        }
                        Version::V3_7 | Version::V3_8 => {
                            out.extend_from_slice(&[1, SECURITY_NONE]);
                            Step::Security(version)
                        }
                    }
                }
                Step::Security(version) => {
                    let Some([chosen]) = take(input) else {
                        return Ok(None);
                    };
                    let is_offered = chosen == SECURITY_NONE;
                    // Before 3.8 there is no result after None.
                    if version == Version::V3_8 {
                        out.extend_from_slice(&u32::from(!is_offered).to_be_bytes());
                        if !is_offered {
                            write_text(out, "This security type was not offered");
                        }
                    }
                    if !is_offered {
                        return Err(HandshakeError::SecurityNotOffered(chosen));
                    }
                    Step::ClientInit(version)
                }
                Step::ClientInit(version) => {
                    return Ok(take(input).map(|[shared]| Established {
                        version,
                        shared: shared != 0,
                    }));
                }
            };
        }
    }
}

fn write_refusal(version: Version, reason: &str, out: &mut Vec<u8>) {
    match version {
        Version::V3_3 => out.extend_from_slice(&0u32.to_be_bytes()),
        Version::V3_7 | Version::V3_8 => out.push(0),
    }
    write_text(out, reason);
}
