//! The machines: five classes in the shares of the alliance that this is modelled on, each machine a
//! little different in what it can do, how fast, and at what price.

use super::{FAMILIES, MATERIALS, happens};
use millpool_proto::v1::{Changeover, Machine, MachineClass, Plant, PowerModel, Size};
use rand::{RngExt as _, rngs::StdRng};

/// What machines of a class have in common. Ranges are inclusive.
struct Kind {
    class: MachineClass,
    /// In ids and names.
    word: &'static str,
    /// Share of the fleet, thousandths.
    share_permille: usize,
    axes: (u32, u32),
    /// Work envelope, mm; each edge is up to half as long again.
    envelope_mm: (u32, u32, u32),
    mass_max_kg: (u64, u64),
    tolerance_um: (u32, u32),
    rate_fen_per_hour: i64,
    setup_rate_fen_per_hour: i64,
    power: PowerModel,
}

const fn watts(idle_w: u32, setup_w: u32, cutting_w: u32) -> PowerModel {
    PowerModel { idle_w, setup_w, cutting_w }
}

const KINDS: [Kind; 5] = [
    Kind {
        class: MachineClass::Lathe,
        word: "lathe",
        share_permille: 190,
        axes: (2, 4),
        envelope_mm: (600, 350, 350),
        mass_max_kg: (60, 400),
        tolerance_um: (8, 20),
        rate_fen_per_hour: 10_800,
        setup_rate_fen_per_hour: 7_200,
        power: watts(900, 1_500, 7_500),
    },
    Kind {
        class: MachineClass::Mill,
        word: "mill",
        share_permille: 190,
        axes: (3, 3),
        envelope_mm: (800, 500, 450),
        mass_max_kg: (200, 900),
        tolerance_um: (10, 25),
        rate_fen_per_hour: 13_200,
        setup_rate_fen_per_hour: 8_400,
        power: watts(1_100, 1_800, 9_000),
    },
    Kind {
        class: MachineClass::FiveAxis,
        word: "five-axis",
        share_permille: 310,
        axes: (5, 5),
        envelope_mm: (600, 550, 450),
        mass_max_kg: (200, 800),
        tolerance_um: (5, 15),
        rate_fen_per_hour: 36_000,
        setup_rate_fen_per_hour: 15_600,
        power: watts(2_500, 3_500, 18_000),
    },
    Kind {
        class: MachineClass::Grinder,
        word: "grinder",
        share_permille: 90,
        axes: (3, 4),
        envelope_mm: (600, 350, 350),
        mass_max_kg: (80, 300),
        tolerance_um: (2, 5),
        rate_fen_per_hour: 15_600,
        setup_rate_fen_per_hour: 9_000,
        power: watts(1_200, 1_800, 6_500),
    },
    Kind {
        class: MachineClass::Cmm,
        word: "cmm",
        share_permille: 220,
        axes: (3, 5),
        envelope_mm: (900, 800, 600),
        mass_max_kg: (300, 1_200),
        tolerance_um: (1, 3),
        rate_fen_per_hour: 14_400,
        setup_rate_fen_per_hour: 5_400,
        power: watts(400, 500, 900),
    },
];

/// Certificates, and in how many of a thousand plants a machine has them.
const CERTIFICATES: [(&str, u32); 4] =
    [("ISO9001", 900), ("IATF16949", 350), ("AS9100", 300), ("ISO13485", 150)];

/// `count` machines over `plants`, every plant having at least one.
pub(super) fn machines(random: &mut StdRng, plants: &[Plant], count: usize) -> Vec<Machine> {
    let mut kinds = fleet_of(count);
    shuffle(random, &mut kinds);
    let certificates: Vec<Vec<String>> = plants.iter().map(|_| certificates(random)).collect();
    let changeovers = changeovers(random);
    let mut machines: Vec<Machine> = Vec::new();
    for (index, kind) in kinds.into_iter().enumerate() {
        let at = if index < plants.len() { index } else { random.random_range(0..plants.len()) };
        let plant = &plants[at];
        let like =
            |machine: &&Machine| machine.plant_id == plant.id && machine.class == i32::from(kind.class);
        let number = machines.iter().filter(like).count() + 1;
        let mut machine = machine(random, kind, &changeovers);
        machine.id = format!("{}-{}-{number}", plant.id, kind.word);
        machine.name = format!("{} {number}", kind.word);
        machine.plant_id.clone_from(&plant.id);
        machine.certificates.clone_from(&certificates[at]);
        machines.push(machine);
    }
    machines.sort_by(|a, b| a.id.cmp(&b.id));
    machines
}

/// The kinds of `count` machines, in the shares of the fleet; what rounding leaves over is five-axis.
fn fleet_of(count: usize) -> Vec<&'static Kind> {
    let mut kinds: Vec<&Kind> = KINDS
        .iter()
        .flat_map(|kind| std::iter::repeat_n(kind, (kind.share_permille * count / 1000).max(1)))
        .take(count)
        .collect();
    kinds.resize(count, &KINDS[2]);
    kinds
}

fn shuffle<T>(random: &mut StdRng, items: &mut [T]) {
    for last in (1..items.len()).rev() {
        items.swap(last, random.random_range(0..=last));
    }
}

fn certificates(random: &mut StdRng) -> Vec<String> {
    let held = CERTIFICATES.into_iter().filter(|(_, permille)| happens(random, *permille));
    held.map(|(name, _)| name.to_owned()).collect()
}

/// From every family to every other, 15 to 50 minutes; the same on every machine, so that the order of
/// work is worth thinking about.
fn changeovers(random: &mut StdRng) -> Vec<Changeover> {
    let mut all = Vec::new();
    for from in FAMILIES {
        for to in FAMILIES.into_iter().filter(|to| *to != from) {
            let seconds = 300 * random.random_range(3..=10);
            all.push(Changeover { from: from.into(), to: to.into(), seconds });
        }
    }
    all
}

fn machine(random: &mut StdRng, kind: &Kind, changeovers: &[Changeover]) -> Machine {
    let mut longer = |edge: u32| edge * random.random_range(100..=150) / 100;
    let (x, y, z) = kind.envelope_mm;
    let envelope = Size { x_mm: longer(x), y_mm: longer(y), z_mm: longer(z) };
    let any = kind.class == MachineClass::Cmm;
    let materials = MATERIALS.into_iter().zip([1000, 1000, 800, 450, 700]);
    let materials = materials.filter(|(_, permille)| any || happens(random, *permille));
    let materials = materials.map(|(name, _)| name.to_owned()).collect();
    let share = i64::from(random.random_range(75..=135_u32));
    let rate = kind.rate_fen_per_hour * share / 100;
    let drawn = random.random_range(80..=120);
    let power = watts(
        kind.power.idle_w * drawn / 100,
        kind.power.setup_w * drawn / 100,
        kind.power.cutting_w * drawn / 100,
    );
    Machine {
        class: kind.class.into(),
        axes: random.random_range(kind.axes.0..=kind.axes.1),
        envelope: Some(envelope),
        mass_max_g: 1000 * random.random_range(kind.mass_max_kg.0..=kind.mass_max_kg.1),
        tolerance_um: random.random_range(kind.tolerance_um.0..=kind.tolerance_um.1),
        materials,
        setup_families: FAMILIES.map(str::to_owned).into(),
        changeovers: changeovers.to_vec(),
        changeover_default_s: 1800,
        initial_family: FAMILIES[random.random_range(0..FAMILIES.len())].into(),
        rate_fen_per_hour: rate - rate % 60,
        setup_rate_fen_per_hour: kind.setup_rate_fen_per_hour,
        speed_permille: random.random_range(800..=1300),
        power: Some(power),
        ..Machine::default()
    }
}
