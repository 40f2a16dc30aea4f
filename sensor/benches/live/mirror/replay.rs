//! A capture mirrored over the network as fast as it goes, against tcpreplay with the file of the same copies.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::{ALL, OUT, Site, configuration};
use crate::blast::{frame, set_flow};
use crate::machine::busy;
use crate::measure;
use crate::throughput::median;
use crate::wire::ELSEWHERE;
use crate::{Options, programs};

/// One turn of one program.
struct Turn {
    wall: Duration,
    cpu: Duration,
    busy: Duration,
}

/// Both in turns, and a table.
///
/// # Errors
///
/// When one of them does not send everything.
pub(super) fn run(options: &Options, out: &mut impl Write) -> Result<()> {
    let Some(tcpreplay) = programs::find("tcpreplay") else {
        writeln!(io::stderr(), "the comparison with tcpreplay is left out: it is not installed")?;
        return Ok(());
    };
    let packets = if options.bench { PACKETS } else { PACKETS / 100 };
    let directory = TempDir::new_in(env!("CARGO_TARGET_TMPDIR"))?;
    let [plain, copies] = ["plain.pcap", "copies.pcap"].map(|name| directory.path().join(name));
    let bytes = write_capture(&plain, packets)?;
    let file = directory.path().join("mirror.toml");
    fs::write(&file, configuration("*", ALL))?;
    let replay = |way: &[&str]| {
        let mut command = Command::new(&options.flowtap);
        command
            .arg("replay")
            .arg(&plain)
            .args(["--output", "/dev/null", "--local", "192.0.2.0/24", "--config"])
            .arg(&file)
            .args(way);
        command
    };
    let to = copies.to_str().context("a directory that is no text")?;
    let written = measure::run(&mut replay(&["--mirror-to", to]), directory.path())?;
    ensure!(written.status.success(), "{}", written.said);

    let mut peer = Command::new(tcpreplay);
    peer.args(["--topspeed", "--intf1", OUT]).arg(&copies);
    let mut all = [
        ("flowtap replay --mirror --speed max", replay(&["--mirror", "--speed", "max"]), Vec::new()),
        ("tcpreplay --topspeed", peer, Vec::new()),
    ];
    for _ in 0..options.rounds {
        for (name, command, turns) in &mut all {
            let turn = turn(command, packets, directory.path()).with_context(|| (*name).to_owned())?;
            writeln!(io::stderr(), "{name}: {:.0} packets a second", packets as f64 / turn.wall.as_secs_f64())?;
            turns.push(turn);
        }
    }
    writeln!(
        out,
        "\n### Mirroring: a capture of {packets} packets, {} bytes each on average, {} rounds\n",
        bytes / packets,
        options.rounds
    )?;
    writeln!(out, "| program | kpackets/s | Gbit/s, inner | its CPU, ns a packet | the machine's, ns a packet |")?;
    writeln!(out, "|---|---:|---:|---:|---:|")?;
    for (name, _, turns) in &all {
        let ns = |value: fn(&Turn) -> Duration| {
            median(turns.iter().map(|turn| value(turn).as_secs_f64() * 1e9 / packets as f64))
        };
        let wall_ns = ns(|turn| turn.wall);
        writeln!(
            out,
            "| {name} | {:.0} | {:.2} | {:.0} | {:.0} |",
            1e6 / wall_ns,
            bytes as f64 / packets as f64 * 8.0 / wall_ns,
            ns(|turn| turn.cpu),
            ns(|turn| turn.busy),
        )?;
    }
    Ok(())
}

/// A run over a new underlay; everything must arrive.
fn turn(command: &mut Command, packets: u64, scratch: &Path) -> Result<Turn> {
    let site = Site::new()?;
    let busy_before = busy()?;
    let run = site.near.run(|| Ok(measure::run(command, scratch)?))?;
    let spent = busy()?.saturating_sub(busy_before);
    ensure!(run.status.success(), "{}", run.said);
    let arrived = site.arrived()?;
    ensure!(arrived == packets, "{arrived} of {packets} arrived: {}", run.said);
    Ok(Turn { wall: run.wall, cpu: run.cpu, busy: spent })
}

/// Frames of 64, 590 and 1514 bytes, 7:4:1, of a thousand flows; their sum. Authority: the pcap format of
/// draft-ietf-opsawg-pcap.
fn write_capture(path: &Path, packets: u64) -> Result<u64> {
    let mut writer = BufWriter::new(File::create(path)?);
    for word in [0xa1b2_c3d4, 0x0004_0002, 0, 0, 65_535, 1_u32] {
        writer.write_all(&word.to_le_bytes())?;
    }
    let mut frames = [64, 590, 1514].map(|bytes| frame(ELSEWHERE, bytes));
    let mut sum = 0;
    for packet in 0..packets {
        let kind = match packet % 12 {
            0..7 => 0,
            7..11 => 1,
            _ => 2,
        };
        let frame = frames.get_mut(kind).context("no such frame")?;
        set_flow(frame, (packet % FLOWS) as u32);
        let length = frame.len() as u32;
        let (secs, micros) = (1_772_442_000 + packet / 1_000_000, packet % 1_000_000);
        for word in [secs as u32, micros as u32, length, length] {
            writer.write_all(&word.to_le_bytes())?;
        }
        writer.write_all(frame)?;
        sum += u64::from(length);
    }
    writer.flush()?;
    Ok(sum)
}

const PACKETS: u64 = 1_000_000;
const FLOWS: u64 = 1000;
