//! The plants' agents: one process that serves all plants, with simulated machines.

use crate::alliance::Alliance;
use crate::clock::AllianceClock;
use crate::cluster::{spawn, tail, terminate};
use anyhow::{Context as _, bail, ensure};
use millpool_proto::v1::{Machine, Plant};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::process::{Child, Command};

/// How long the agents may take to send what they have and stop.
const STOP_WAIT: Duration = Duration::from_secs(8);

/// What befalls the simulated machines.
#[derive(Clone, Copy, Debug)]
pub struct Fate {
    /// Everything that befalls them comes from it.
    pub seed: u64,
    /// Mean working hours between breakdowns.
    pub mtbf_h: u32,
    /// Operations of a thousand that overrun.
    pub overrun_permille: u32,
    /// Operations of a thousand whose pieces are lost.
    pub scrap_permille: u32,
}

impl Fate {
    /// Now and then a breakdown or an overrun, seldom scrap.
    pub fn ordinary(seed: u64) -> Self {
        Self { seed, mtbf_h: 40, overrun_permille: 120, scrap_permille: 12 }
    }
}

/// The running agents.
pub struct Agents {
    process: Child,
    log_file: PathBuf,
}

impl Agents {
    /// Writes the agents' configuration into `data_dir`, and starts them.
    pub fn start(
        bin_dir: &Path,
        data_dir: &Path,
        alliance: &Alliance,
        clock: AllianceClock,
        coordinators: &[String],
        fate: Fate,
    ) -> anyhow::Result<Self> {
        let file = data_dir.join("agents.toml");
        let text = configuration(alliance, &data_dir.join("agents"), clock, coordinators, fate);
        std::fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
        let log_file = data_dir.join("logs").join("agents.log");
        let mut command = Command::new(bin_dir.join("millpool-node-agent"));
        command.arg("--config").arg(&file);
        let process = spawn(&mut command, &log_file)?;
        Ok(Self { process, log_file })
    }

    /// Fails if the agents have ended, with the end of their log.
    pub fn check_alive(&mut self) -> anyhow::Result<()> {
        match self.process.try_wait()? {
            Some(status) => bail!("the agents have ended ({status}):\n{}", tail(&self.log_file)),
            None => Ok(()),
        }
    }

    /// Stops them in good order: what has happened is sent first.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        terminate(&self.process)?;
        let stopped = tokio::time::timeout(STOP_WAIT, self.process.wait()).await;
        let status = stopped.with_context(|| format!("the agents did not stop within {STOP_WAIT:?}"))??;
        ensure!(status.success(), "the agents stopped with {status}:\n{}", tail(&self.log_file));
        Ok(())
    }
}

/// The agents' configuration: one `[[agent]]` a plant.
fn configuration(
    alliance: &Alliance,
    folder: &Path,
    clock: AllianceClock,
    coordinators: &[String],
    fate: Fate,
) -> String {
    let mut text = format!("data_dir = {:?}\n\n", folder.display().to_string());
    if clock.scale > 1 {
        let _ = writeln!(text, "[clock]\nscale = {}.0\nepoch = \"{}\"\n", clock.scale, clock.epoch_ms);
    }
    let _ = writeln!(text, "[coordinator]\naddresses = {coordinators:?}\ninsecure_dev = true\n");
    let Fate { seed, mtbf_h, overrun_permille, scrap_permille } = fate;
    let _ = writeln!(
        text,
        "[simulated]\nseed = {seed}\nmtbf_h = {mtbf_h}\nrepair_min = [20, 150]\n\
         overrun_permille = {overrun_permille}\noverrun_extra_permille = [50, 300]\n\
         scrap_permille = {scrap_permille}\npiece_scrap_permille = 4\n"
    );
    for plant in &alliance.plants {
        agent(&mut text, plant, alliance.machines_of(&plant.id));
    }
    text
}

fn agent<'a>(text: &mut String, plant: &Plant, machines: impl Iterator<Item = &'a Machine>) {
    let _ = writeln!(text, "[[agent]]\nplant = \"{0}\"\ncoordinator = {{ token = \"agent:{0}\" }}", plant.id);
    for machine in machines {
        let power = machine.power.unwrap_or_default();
        let _ = writeln!(
            text,
            "[[agent.machine]]\nid = \"{}\"\nadapter = \"simulated\"\n\
             power = {{ idle_w = {}, setup_w = {}, cutting_w = {} }}",
            machine.id, power.idle_w, power.setup_w, power.cutting_w
        );
    }
    text.push('\n');
}
