//! Which machines can do an operation, and which requirement excludes the others.

use crate::order::{Operation, Order};
use crate::refusal::Obstacle;
use crate::registry::Machine;

/// One requirement: its name, whether a machine meets it, what was asked, what a machine has.
struct Requirement {
    name: &'static str,
    meets: fn(&Order, &Operation, &Machine) -> bool,
    asked: fn(&Order, &Operation) -> String,
    /// A machine's value, ordered so that the greatest is the best.
    has: fn(&Machine) -> (i64, String),
}

fn list<'a>(names: impl IntoIterator<Item = &'a String>) -> String {
    let names: Vec<&str> = names.into_iter().map(String::as_str).collect();
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

fn size(s: &crate::registry::Size) -> String {
    format!("{} x {} x {} mm", s.x_mm, s.y_mm, s.z_mm)
}

fn volume(s: &crate::registry::Size) -> i64 {
    i64::from(s.x_mm) * i64::from(s.y_mm) * i64::from(s.z_mm) / 1000
}

/// Every requirement but the class, which decides who is asked at all.
const REQUIREMENTS: [Requirement; 8] = [
    Requirement {
        name: "axes_min",
        meets: |_, op, m| m.axes >= op.axes_min,
        asked: |_, op| format!("at least {}", op.axes_min),
        has: |m| (m.axes.into(), m.axes.to_string()),
    },
    Requirement {
        name: "size",
        meets: |order, _, m| order.size.fits(&m.envelope),
        asked: |order, _| size(&order.size),
        has: |m| (volume(&m.envelope), size(&m.envelope)),
    },
    Requirement {
        name: "mass_g",
        meets: |order, _, m| order.mass_g <= m.mass_max_g,
        asked: |order, _| order.mass_g.to_string(),
        has: |m| (m.mass_max_g as i64, m.mass_max_g.to_string()),
    },
    Requirement {
        name: "tolerance_um",
        meets: |_, op, m| op.tolerance_um == 0 || m.tolerance_um <= op.tolerance_um,
        asked: |_, op| format!("at most {}", op.tolerance_um),
        has: |m| (-i64::from(m.tolerance_um), m.tolerance_um.to_string()),
    },
    Requirement {
        name: "material",
        meets: |order, _, m| m.materials.contains(&order.material),
        asked: |order, _| order.material.clone(),
        has: |m| (m.materials.len() as i64, list(&m.materials)),
    },
    Requirement {
        name: "certificates",
        meets: |_, op, m| op.certificates.is_subset(&m.certificates),
        asked: |_, op| list(&op.certificates),
        has: |m| (m.certificates.len() as i64, list(&m.certificates)),
    },
    Requirement {
        name: "setup_family",
        meets: |_, op, m| m.setup_families.contains(&op.setup_family),
        asked: |_, op| op.setup_family.clone(),
        has: |m| (m.setup_families.len() as i64, list(&m.setup_families)),
    },
    Requirement {
        name: "excluded_plants",
        meets: |order, _, m| !order.excluded_plants.contains(&m.plant),
        asked: |order, _| {
            let plants: Vec<&str> = order.excluded_plants.iter().map(|p| p.as_str()).collect();
            format!("not in {}", plants.join(", "))
        },
        has: |_| (0, "excluded by the order".into()),
    },
];

/// Whether `machine` can do `operation` of `order`.
pub fn eligible(order: &Order, operation: &Operation, machine: &Machine) -> bool {
    machine.class == operation.class && REQUIREMENTS.iter().all(|r| (r.meets)(order, operation, machine))
}

/// The first requirement that `machine` does not meet, by name.
pub fn unmet(order: &Order, operation: &Operation, machine: &Machine) -> Option<&'static str> {
    if machine.class != operation.class {
        return Some("class");
    }
    REQUIREMENTS.iter().find(|r| !(r.meets)(order, operation, machine)).map(|r| r.name)
}

/// For operation `index` of `order`, every requirement that excludes a machine of its class, the one that
/// excludes most first. If there is no machine of the class, that is the one obstacle.
pub fn obstacles<'a>(
    order: &Order,
    index: usize,
    machines: impl Iterator<Item = &'a Machine> + Clone,
) -> Vec<Obstacle> {
    let operation = &order.route[index];
    let of_class = machines.filter(|m| m.class == operation.class);
    let count = of_class.clone().count() as u32;
    let obstacle = |requirement, asked, available, excluded| Obstacle {
        operation: index as u32,
        requirement,
        asked,
        available,
        excluded,
        of_class: count,
    };
    if count == 0 {
        return vec![obstacle("class", operation.class.name().into(), "no machine of this class".into(), 0)];
    }
    let mut found: Vec<Obstacle> = REQUIREMENTS
        .iter()
        .filter_map(|r| {
            let excluded = of_class.clone().filter(|m| !(r.meets)(order, operation, m)).count() as u32;
            let best = of_class.clone().map(|m| (r.has)(m)).max()?;
            (excluded > 0).then(|| obstacle(r.name, (r.asked)(order, operation), best.1, excluded))
        })
        .collect();
    found.sort_by_key(|o| std::cmp::Reverse(o.excluded));
    found
}
