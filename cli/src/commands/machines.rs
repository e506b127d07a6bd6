//! `millpool machines`: what the pool can do.

use super::pages::{LimitArgs, gather, notice_rest};
use super::put::{PutArgs, from_file, lacks, set, set_all};
use super::{Desk, json_of};
use crate::client::Client;
use crate::failure::Failure;
use crate::output::{Output, Sheet, Tone};
use crate::shown;
use crate::written::{self, flag};
use clap::{Args, Subcommand};
use millpool_proto::v1::{
    Changeover, ListMachinesRequest, ListMachinesResponse, Machine, MachineClass, MachineState, PowerModel,
    PutMachineRequest, Size,
};

/// The machines of the plants.
#[derive(Subcommand, Debug)]
pub enum MachinesCommand {
    /// Lists machines
    List(ListMachinesArgs),
    /// Creates or changes a machine
    #[command(after_help = "\
Flags change what is there; to create a machine, name its plant, class and what it can do.

Examples:
  millpool machines put dmu50-1 --plant yubei-2 --name 'DMU 50 no. 1' --class five-axis --axes 5 \\
      --envelope 500x450x400 --mass-max 300kg --tolerance 8 --materials aluminium,steel \\
      --families F1,F2 --changeover 'F1>F2=45m' --changeover-default 30m \\
      --rate 320 --setup-rate 180 --power 900/1500/9000
  millpool machines put dmu50-1 --rate 290
  millpool machines put --file dmu50-1.json")]
    Put(Box<PutMachineArgs>),
}

/// Which machines.
#[derive(Args, Debug)]
pub struct ListMachinesArgs {
    /// Only machines of this plant
    #[arg(long, value_name = "PLANT", default_value = "")]
    plant: String,
    /// Only machines of this class: lathe, mill, five-axis, grinder or cmm
    #[arg(long, value_name = "CLASS", value_parser = flag(written::class))]
    class: Option<MachineClass>,
    #[command(flatten)]
    limit: LimitArgs,
}

/// A machine, as flags.
#[derive(Args, Debug)]
pub struct PutMachineArgs {
    /// Its id: lower-case letters, digits and dashes
    #[arg(required_unless_present = "file")]
    id: Option<String>,
    /// The plant that it stands in
    #[arg(long, value_name = "PLANT")]
    plant: Option<String>,
    /// The name that people read
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,
    /// lathe, mill, five-axis, grinder or cmm
    #[arg(long, value_name = "CLASS", value_parser = flag(written::class))]
    class: Option<MachineClass>,
    /// Axes that move together
    #[arg(long, value_name = "N")]
    axes: Option<u32>,
    /// Work envelope, mm, e.g. 500x450x400
    #[arg(long, value_name = "XxYxZ", value_parser = flag(written::size))]
    envelope: Option<Size>,
    /// Largest mass of a workpiece, e.g. 300kg
    #[arg(long, value_name = "MASS", value_parser = flag(written::mass_g))]
    mass_max: Option<u64>,
    /// Finest tolerance that it holds, µm
    #[arg(long, value_name = "UM", value_parser = flag(written::tolerance_um))]
    tolerance: Option<u32>,
    /// Materials that it may cut
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    materials: Vec<String>,
    /// Certificates that it holds
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    certificates: Vec<String>,
    /// Setup families that it can be set up for
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    families: Vec<String>,
    /// A changeover time that differs from the default, e.g. 'F1>F2=45m'; repeat for more
    #[arg(long = "changeover", value_name = "FROM>TO=DURATION", value_parser = flag(changeover))]
    changeovers: Vec<Changeover>,
    /// Changeover time between two different families
    #[arg(long, value_name = "DURATION", value_parser = flag(written::duration_s))]
    changeover_default: Option<u32>,
    /// The family that it is set up for now
    #[arg(long, value_name = "NAME")]
    initial_family: Option<String>,
    /// Price of an hour of processing, CNY
    #[arg(long, value_name = "MONEY", value_parser = flag(written::money_fen))]
    rate: Option<i64>,
    /// Price of an hour of setup, CNY
    #[arg(long, value_name = "MONEY", value_parser = flag(written::money_fen))]
    setup_rate: Option<i64>,
    /// Speed against the catalogue's run time, in thousandths
    #[arg(long, value_name = "PERMILLE")]
    speed: Option<u32>,
    /// Power while idle, in setup and cutting, W, e.g. 900/1500/9000
    #[arg(long, value_name = "IDLE/SETUP/CUTTING", value_parser = flag(power))]
    power: Option<PowerModel>,
    #[command(flatten)]
    put: PutArgs,
}

fn changeover(text: &str) -> Result<Changeover, String> {
    let read = || {
        let (families, time) = text.split_once('=')?;
        let (from, to) = families.split_once('>')?;
        let seconds = written::duration_s(time).ok()?;
        Some(Changeover { from: from.trim().to_owned(), to: to.trim().to_owned(), seconds })
    };
    read().ok_or_else(|| "FROM>TO=DURATION, e.g. 'F1>F2=45m'".to_owned())
}

fn power(text: &str) -> Result<PowerModel, String> {
    let watts: Option<Vec<u32>> = text.split('/').map(|watt| watt.trim().parse().ok()).collect();
    match watts.as_deref() {
        Some([idle_w, setup_w, cutting_w]) => {
            Ok(PowerModel { idle_w: *idle_w, setup_w: *setup_w, cutting_w: *cutting_w })
        }
        _ => Err("three numbers of W: idle/setup/cutting, e.g. 900/1500/9000".to_owned()),
    }
}

/// Runs `machines`.
pub async fn run(command: &MachinesCommand, desk: &mut Desk<'_>) -> Result<(), Failure> {
    let client = desk.client()?;
    match command {
        MachinesCommand::List(args) => {
            let (machines, rest) = list(&client, &args.plant, args.class, args.limit).await?;
            if desk.output.json {
                let all = ListMachinesResponse { header: None, machines, next_page_token: rest };
                return Ok(desk.output.value(&json_of("ListMachinesResponse", &all)?)?);
            }
            show(&machines, &mut desk.output)?;
            notice_rest(machines.len(), &rest, &mut desk.output)
        }
        MachinesCommand::Put(args) => {
            let machine = machine(args, &client, desk).await?;
            let request = PutMachineRequest {
                request_id: args.put.request_id(),
                expected_revision: args.put.expected(machine.revision),
                machine: Some(machine),
            };
            let answer = client.put_machine(request).await?;
            if desk.output.json {
                return Ok(desk.output.value(&json_of("PutMachineResponse", &answer)?)?);
            }
            show(&answer.machine.into_iter().collect::<Vec<_>>(), &mut desk.output)
        }
    }
}

async fn list(
    client: &Client,
    plant: &str,
    class: Option<MachineClass>,
    limit: LimitArgs,
) -> Result<(Vec<Machine>, String), Failure> {
    gather(limit, async |page| {
        let request = ListMachinesRequest {
            plant_id: plant.to_owned(),
            class: class.unwrap_or(MachineClass::Unspecified).into(),
            page: Some(page),
            consistency: None,
        };
        let answer = client.list_machines(request).await?;
        Ok((answer.machines, answer.next_page_token))
    })
    .await
}

async fn machine(args: &PutMachineArgs, client: &Client, desk: &Desk<'_>) -> Result<Machine, Failure> {
    let mut machine: Machine = match (&args.put.file, &args.id) {
        (Some(path), _) => from_file("Machine", path, desk)?,
        (None, id) => {
            let id = id.clone().unwrap_or_default();
            let (known, _) = list(client, "", None, LimitArgs { limit: 0 }).await?;
            match known.into_iter().find(|machine| machine.id == id) {
                Some(machine) => machine,
                None => {
                    lacks("machine", &id, &needed(args))?;
                    Machine { id, ..Machine::default() }
                }
            }
        }
    };
    change(&mut machine, args);
    Ok(machine)
}

fn needed(args: &PutMachineArgs) -> [(&'static str, bool); 10] {
    [
        ("--plant", args.plant.is_none()),
        ("--name", args.name.is_none()),
        ("--class", args.class.is_none()),
        ("--axes", args.axes.is_none()),
        ("--envelope", args.envelope.is_none()),
        ("--mass-max", args.mass_max.is_none()),
        ("--tolerance", args.tolerance.is_none()),
        ("--materials", args.materials.is_empty()),
        ("--families", args.families.is_empty()),
        ("--rate", args.rate.is_none()),
    ]
}

fn change(machine: &mut Machine, args: &PutMachineArgs) {
    set(&mut machine.id, &args.id);
    set(&mut machine.plant_id, &args.plant);
    set(&mut machine.name, &args.name);
    set(&mut machine.class, &args.class);
    set(&mut machine.axes, &args.axes);
    set(&mut machine.envelope, &args.envelope.map(Some));
    set(&mut machine.mass_max_g, &args.mass_max);
    set(&mut machine.tolerance_um, &args.tolerance);
    set_all(&mut machine.materials, &args.materials);
    set_all(&mut machine.certificates, &args.certificates);
    set_all(&mut machine.setup_families, &args.families);
    set_all(&mut machine.changeovers, &args.changeovers);
    set(&mut machine.changeover_default_s, &args.changeover_default);
    set(&mut machine.initial_family, &args.initial_family);
    set(&mut machine.rate_fen_per_hour, &args.rate);
    set(&mut machine.setup_rate_fen_per_hour, &args.setup_rate);
    set(&mut machine.speed_permille, &args.speed);
    set(&mut machine.power, &args.power.map(Some));
}

fn show(machines: &[Machine], output: &mut Output) -> Result<(), Failure> {
    let columns = [
        "MACHINE",
        "PLANT",
        "CLASS",
        ">AXES",
        "ENVELOPE MM",
        ">UP TO",
        ">TOL µM",
        "FAMILIES",
        "MATERIALS",
        ">CNY/H",
        "STATE",
    ];
    let mut sheet = Sheet::new(&columns);
    for machine in machines {
        sheet.toned(vec![
            (Tone::Strong, machine.id.clone()),
            (Tone::Plain, machine.plant_id.clone()),
            (Tone::Plain, shown::class(machine.class()).to_owned()),
            (Tone::Plain, machine.axes.to_string()),
            (Tone::Plain, shown::size(machine.envelope.as_ref())),
            (Tone::Plain, shown::mass(machine.mass_max_g)),
            (Tone::Plain, machine.tolerance_um.to_string()),
            (Tone::Plain, machine.setup_families.join(" ")),
            (Tone::Plain, machine.materials.join(" ")),
            (Tone::Plain, shown::amount(machine.rate_fen_per_hour)),
            state(machine, output),
        ]);
    }
    Ok(output.sheet(&sheet)?)
}

fn state(machine: &Machine, output: &Output) -> (Tone, String) {
    if machine.down {
        let until = match machine.down_until_s {
            0 => "nobody knows until when".to_owned(),
            until => format!("until {}", shown::time(until, &output.clock)),
        };
        return (Tone::Bad, format!("down, {until}"));
    }
    let tone = match machine.state() {
        MachineState::Unknown | MachineState::Off => Tone::Faint,
        MachineState::Blocked | MachineState::Held => Tone::Warn,
        _ => Tone::Good,
    };
    (tone, shown::machine_state(machine.state()).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changeovers_and_power_models() {
        let expected = Changeover { from: "F1".to_owned(), to: "F2".to_owned(), seconds: 2700 };
        assert_eq!(changeover("F1>F2=45m"), Ok(expected));
        for text in ["", "F1>F2", "F1=45m", "F1>F2=45", "F1>F2=x"] {
            assert!(changeover(text).is_err(), "{text}");
        }
        assert_eq!(power("900/1500/9000"), Ok(PowerModel { idle_w: 900, setup_w: 1500, cutting_w: 9000 }));
        for text in ["", "900", "900/1500", "900/1500/9000/1", "a/b/c", "-1/2/3"] {
            assert!(power(text).is_err(), "{text}");
        }
    }
}
