// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The device's configuration (CONFIG).

use conventions::DeviceType;
use frontend::{FrontendReq, Session, VhostUserProtocolFeatures as Protocol};

use super::replies::is_reply;
use crate::outcome::{Flaw, Seen, fails, not_tried};
use crate::point::Point;
use crate::trial::{Served, Trial};

const GET_CONFIG: &str = "vhost-user.rst, VHOST_USER_GET_CONFIG";
/// Types with a configuration.
pub(super) const TYPES: &[DeviceType] = &[
    DeviceType::Block,
    DeviceType::Gpu,
    DeviceType::Input,
    DeviceType::Net,
    DeviceType::Fs,
    DeviceType::Vsock,
    DeviceType::Console,
    DeviceType::Scsi,
];

pub(super) const POINTS: &[Point] = &[
    Point::required(
        "protocol/config-read",
        GET_CONFIG,
        "GET_CONFIG is answered with as many bytes as were asked for.",
        read,
    )
    .of(TYPES)
    .offering(Protocol::CONFIG),
    Point::required(
        "protocol/config-partial",
        GET_CONFIG,
        "GET_CONFIG of a part, down to a byte, tells what lies there in the whole.",
        partial,
    )
    .of(TYPES)
    .offering(Protocol::CONFIG),
    Point::required(
        "protocol/config-read-only",
        "vhost-user.rst, VHOST_USER_SET_CONFIG",
        "SET_CONFIG of a field that drivers must not write changes nothing, unless the flags say that it is a migration.",
        read_only,
    )
    .of(TYPES)
    .offering(Protocol::CONFIG),
    Point::required(
        "protocol/config-bounds",
        GET_CONFIG,
        "GET_CONFIG beyond the end of the configuration is answered, at best with an empty payload for the error, or ends \
         the connection; it does not crash the backend.",
        bounds,
    )
    .of(TYPES)
    .offering(Protocol::CONFIG),
];

/// A field of 2 bytes that no driver may write.
fn read_only(trial: &Trial) -> Seen {
    // An input device's selectors are for writing; what follows tells what they select.
    let offset = if trial.device_type()? == DeviceType::Input {
        2
    } else {
        0
    };
    let mut served = connect(trial)?;
    let size = size(trial)?;
    let before = served.session.config(0, size)?;
    let at = offset as usize;
    let Some(field) = before.get(at..at + 2) else {
        return fails(format!("the configuration has {} bytes", before.len()));
    };
    let other: Vec<u8> = field.iter().map(|byte| !byte).collect();
    // Flags of 0: it is the driver that writes, not a migration.
    let what = format!("2 bytes at {offset}");
    let answer = match served.session.set_config_with(offset, &other, 0) {
        Ok(()) if served.session.settle().is_ok() => "ignored",
        Err(frontend::Error::Refused { .. }) => "refused",
        Err(error) if error.is_timeout() => return fails(format!("{what}: {error}")),
        Err(error @ frontend::Error::Protocol(_)) => return fails(format!("{what}: {error}")),
        _ => return connection_ends(trial, &mut served, &what),
    };
    match served.session.config(0, size) {
        Ok(after) if after == before => Ok(format!("writing {what} is {answer}")),
        Ok(_) => fails(format!("{what} are written")),
        // libvhost-user acknowledges first.
        Err(frontend::Error::Closed { .. } | frontend::Error::Io { .. }) => {
            connection_ends(trial, &mut served, &what)
        }
        Err(error) => fails(format!("after writing {what}: {error}")),
    }
}

fn connection_ends(trial: &Trial, served: &mut Served, what: &str) -> Seen {
    served.started.not_crashed(trial, what)?;
    Ok(format!("writing {what} ends the connection"))
}

/// How much of a type's configuration every device has, in bytes.
fn size(trial: &Trial) -> Result<u32, Flaw> {
    Ok(match trial.device_type()? {
        DeviceType::Input => 136,
        DeviceType::Gpu => 16,
        DeviceType::Block => 24,
        DeviceType::Fs => 40,
        DeviceType::Scsi => 36,
        _ => 8,
    })
}

fn connect(trial: &Trial) -> Result<Served, Flaw> {
    let mut served = trial.serve()?;
    served
        .session
        .negotiate(Session::usual_protocol_features())?;
    Ok(served)
}

fn read(trial: &Trial) -> Seen {
    let size = size(trial)?;
    let mut served = connect(trial)?;
    let bytes = served.session.config(0, size)?;
    Ok(format!("{} bytes", bytes.len()))
}

fn partial(trial: &Trial) -> Seen {
    let size = size(trial)?;
    let mut served = connect(trial)?;
    let whole = served.session.config(0, size)?;
    for (offset, len) in [(4, 4), (size - 1, 1), (1, 2), (size / 2, size / 2)] {
        let part = served.session.config(offset, len)?;
        let (from, to) = (offset as usize, (offset + len) as usize);
        if part != whole[from..to] {
            return fails(format!(
                "{len} bytes at {offset} differ from those in the whole"
            ));
        }
    }
    Ok("4 parts are equal".into())
}

fn bounds(trial: &Trial) -> Seen {
    let mut answers = Vec::new();
    for (offset, len) in [(4000, 8), (256, 1), (u32::MAX, 1), (250, 255)] {
        let mut served = connect(trial)?;
        let mut body = [offset, len, 0].map(u32::to_ne_bytes).concat();
        body.resize(12 + len as usize, 0);
        let channel = &served.session.channel;
        let sent = channel.send(FrontendReq::GET_CONFIG.into(), 1, &body, &[]);
        let answer = sent.and_then(|()| channel.receive());
        let what = format!("{len} bytes at {offset}");
        answers.push(match answer {
            Ok(reply) if !is_reply(&reply, FrontendReq::GET_CONFIG, reply.body.len()) => {
                let (request, flags) = (reply.request, reply.flags);
                return fails(format!(
                    "{what}: an answer by request {request}, flags {flags:#x}"
                ));
            }
            Ok(reply) if reply.body.is_empty() => "an error",
            Ok(reply) if reply.body.len() == body.len() => "bytes",
            // QEMU takes a reply of another size for a broken one.
            Ok(reply) if reply.body.len() <= 12 => "an error",
            Ok(reply) => return fails(format!("{what} are answered with {}", reply.body.len())),
            Err(error) if error.is_closed() => "the end of the connection",
            Err(error) => return fails(format!("{what}: {error}")),
        });
        super::malformed::survived(trial, &mut served, &what)?;
        drop(served);
    }
    if answers.is_empty() {
        return not_tried("nothing was asked");
    }
    answers.dedup();
    Ok(format!("answered with {}", answers.join(", ")))
}
