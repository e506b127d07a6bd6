//! Members, plants, machines, offers, principals and the policy.

use super::{narrow, nonzero, required, unknown_enum};
use millpool_alliance::command::{Caller, Disturbed};
use millpool_alliance::line::{MachineState, Station};
use millpool_alliance::offer::{Offer, Shift};
use millpool_alliance::registry::{
    Changeover, GridFactor, Machine, MachineClass, Member, Plant, Policy, PowerModel, Principal, Role, Size,
    TransportTariff,
};
use millpool_alliance::window::LATEST;
use millpool_alliance::{
    MachineId, MemberId, OfferId, PlantId, PrincipalId, Reason, Refusal, State, Window, Windows,
};
use millpool_proto::{state::v1 as state, v1};

/// A member as the API shows it.
pub fn member(m: &Member) -> v1::Member {
    v1::Member { id: m.id.to_string(), name: m.name.clone(), revision: m.revision }
}

/// Reads a member.
pub fn read_member(m: v1::Member) -> Result<Member, Refusal> {
    Ok(Member { id: MemberId::parse(&m.id)?, name: m.name, revision: m.revision })
}

/// A plant as the API shows it.
pub fn plant(p: &Plant) -> v1::Plant {
    v1::Plant {
        id: p.id.to_string(),
        member_id: p.member.to_string(),
        name: p.name.clone(),
        time_zone: p.time_zone.clone(),
        east_m: p.east_m,
        north_m: p.north_m,
        grid_region: p.grid_region.clone(),
        revision: p.revision,
    }
}

/// Reads a plant.
pub fn read_plant(p: v1::Plant) -> Result<Plant, Refusal> {
    Ok(Plant {
        id: PlantId::parse(&p.id)?,
        member: MemberId::parse(&p.member_id)?,
        name: p.name,
        time_zone: p.time_zone,
        east_m: p.east_m,
        north_m: p.north_m,
        grid_region: p.grid_region,
        revision: p.revision,
    })
}

/// A machine class on the wire.
pub fn class(c: MachineClass) -> v1::MachineClass {
    match c {
        MachineClass::Lathe => v1::MachineClass::Lathe,
        MachineClass::Mill => v1::MachineClass::Mill,
        MachineClass::FiveAxis => v1::MachineClass::FiveAxis,
        MachineClass::Grinder => v1::MachineClass::Grinder,
        MachineClass::Cmm => v1::MachineClass::Cmm,
    }
}

/// Reads a machine class.
pub fn read_class(field: &str, value: i32) -> Result<MachineClass, Refusal> {
    Ok(match v1::MachineClass::try_from(value) {
        Ok(v1::MachineClass::Lathe) => MachineClass::Lathe,
        Ok(v1::MachineClass::Mill) => MachineClass::Mill,
        Ok(v1::MachineClass::FiveAxis) => MachineClass::FiveAxis,
        Ok(v1::MachineClass::Grinder) => MachineClass::Grinder,
        Ok(v1::MachineClass::Cmm) => MachineClass::Cmm,
        _ => return Err(unknown_enum(field, value, "lathe, mill, five-axis, grinder or cmm")),
    })
}

pub(super) fn size(s: &Size) -> v1::Size {
    v1::Size { x_mm: s.x_mm, y_mm: s.y_mm, z_mm: s.z_mm }
}

pub(super) fn read_size(s: v1::Size) -> Size {
    Size { x_mm: s.x_mm, y_mm: s.y_mm, z_mm: s.z_mm }
}

/// A window on the wire.
pub fn window(w: &Window) -> v1::Window {
    v1::Window { start_s: w.start, end_s: w.end }
}

pub(super) fn read_window(w: &v1::Window) -> Window {
    Window::new(w.start_s, w.end_s)
}

/// Reads a set of times that was worked out before. None of it lies where times cannot be reckoned with.
pub(super) fn read_windows(field: &str, windows: &[v1::Window]) -> Result<Windows, Refusal> {
    let wrong = |w: &&v1::Window| !(0 <= w.start_s && w.start_s < w.end_s && w.end_s <= LATEST);
    if let Some(w) = windows.iter().find(wrong) {
        let value = format!("[{}, {})", w.start_s, w.end_s);
        let accepted = "start_s before end_s, both seconds since 1970, before the year 10000";
        return Err(Refusal::invalid(Reason::InvalidField, field, value, accepted));
    }
    Ok(Windows::union(windows.iter().map(read_window)))
}

/// A machine's properties, as the log keeps them.
pub fn machine(m: &Machine) -> v1::Machine {
    v1::Machine {
        id: m.id.to_string(),
        plant_id: m.plant.to_string(),
        name: m.name.clone(),
        class: class(m.class).into(),
        axes: m.axes,
        envelope: Some(size(&m.envelope)),
        mass_max_g: m.mass_max_g,
        tolerance_um: m.tolerance_um,
        materials: m.materials.iter().cloned().collect(),
        certificates: m.certificates.iter().cloned().collect(),
        setup_families: m.setup_families.iter().cloned().collect(),
        changeovers: m
            .changeovers
            .iter()
            .map(|c| v1::Changeover { from: c.from.clone(), to: c.to.clone(), seconds: narrow(c.seconds) })
            .collect(),
        changeover_default_s: narrow(m.changeover_default_s),
        initial_family: m.initial_family.clone().unwrap_or_default(),
        rate_fen_per_hour: m.rate_fen_per_hour,
        setup_rate_fen_per_hour: m.setup_rate_fen_per_hour,
        speed_permille: narrow(m.speed_permille),
        power: Some(v1::PowerModel {
            idle_w: m.power.idle_w,
            setup_w: m.power.setup_w,
            cutting_w: m.power.cutting_w,
        }),
        revision: m.revision,
        ..v1::Machine::default()
    }
}

/// A machine as the API shows it: its properties, and what is known of it.
pub fn station(state: &State, s: &Station, redacted: bool) -> v1::Machine {
    let mut shown = machine(&s.machine);
    if redacted {
        shown.redacted = true;
        return shown;
    }
    let (known, since) = state.known_state(s);
    shown.state = machine_state(known).into();
    shown.state_since_s = since;
    shown.down = s.down.is_some();
    shown.down_until_s = s.down.as_ref().map_or(0, |d| d.until);
    shown
}

/// Reads a machine's properties.
pub fn read_machine(m: v1::Machine) -> Result<Machine, Refusal> {
    let power = required("machine.power", m.power)?;
    Ok(Machine {
        id: MachineId::parse(&m.id)?,
        plant: PlantId::parse(&m.plant_id)?,
        name: m.name,
        class: read_class("machine.class", m.class)?,
        axes: m.axes,
        envelope: read_size(required("machine.envelope", m.envelope)?),
        mass_max_g: m.mass_max_g,
        tolerance_um: m.tolerance_um,
        materials: m.materials.into_iter().collect(),
        certificates: m.certificates.into_iter().collect(),
        setup_families: m.setup_families.into_iter().collect(),
        changeovers: m
            .changeovers
            .into_iter()
            .map(|c| Changeover { from: c.from, to: c.to, seconds: c.seconds.into() })
            .collect(),
        changeover_default_s: m.changeover_default_s.into(),
        initial_family: Some(m.initial_family).filter(|f| !f.is_empty()),
        rate_fen_per_hour: m.rate_fen_per_hour,
        setup_rate_fen_per_hour: m.setup_rate_fen_per_hour,
        speed_permille: nonzero(m.speed_permille.into()).unwrap_or(1000),
        power: PowerModel { idle_w: power.idle_w, setup_w: power.setup_w, cutting_w: power.cutting_w },
        revision: m.revision,
    })
}

/// A machine's reported state on the wire.
pub fn machine_state(s: MachineState) -> v1::MachineState {
    match s {
        MachineState::Unknown => v1::MachineState::Unknown,
        MachineState::Off => v1::MachineState::Off,
        MachineState::Idle => v1::MachineState::Idle,
        MachineState::Setup => v1::MachineState::Setup,
        MachineState::Producing => v1::MachineState::Producing,
        MachineState::Held => v1::MachineState::Held,
        MachineState::Blocked => v1::MachineState::Blocked,
        MachineState::Maintenance => v1::MachineState::Maintenance,
    }
}

/// Reads a machine's reported state; what nobody knows is unknown.
pub fn read_machine_state(value: i32) -> MachineState {
    match v1::MachineState::try_from(value).unwrap_or(v1::MachineState::Unknown) {
        v1::MachineState::Unknown => MachineState::Unknown,
        v1::MachineState::Off => MachineState::Off,
        v1::MachineState::Idle => MachineState::Idle,
        v1::MachineState::Setup => MachineState::Setup,
        v1::MachineState::Producing => MachineState::Producing,
        v1::MachineState::Held => MachineState::Held,
        v1::MachineState::Blocked => MachineState::Blocked,
        v1::MachineState::Maintenance => MachineState::Maintenance,
    }
}

/// An offer on the wire.
pub fn offer(o: &Offer) -> v1::Offer {
    v1::Offer {
        id: o.id.to_string(),
        machine_id: o.machine.to_string(),
        shifts: o
            .shifts
            .iter()
            .map(|s| v1::Shift {
                weekdays: s.weekdays.iter().copied().collect(),
                start_minute: narrow(s.start_minute),
                end_minute: narrow(s.end_minute),
            })
            .collect(),
        from_s: o.from,
        until_s: o.until,
        windows: o.windows.iter().map(window).collect(),
        except: o.except.iter().map(window).collect(),
        notice_s: narrow(o.notice_s),
        open: o.open.iter().map(window).collect(),
        withdrawn: o.withdrawn,
        revision: o.revision,
    }
}

/// Reads an offer as it stands in the log, its windows worked out.
pub fn read_offer(o: v1::Offer) -> Result<Offer, Refusal> {
    Ok(Offer {
        id: OfferId::parse(&o.id)?,
        machine: MachineId::parse(&o.machine_id)?,
        shifts: o
            .shifts
            .into_iter()
            .map(|s| Shift {
                weekdays: s.weekdays.into_iter().collect(),
                start_minute: s.start_minute.into(),
                end_minute: s.end_minute.into(),
            })
            .collect(),
        from: o.from_s,
        until: o.until_s,
        windows: o.windows.iter().map(read_window).collect(),
        except: o.except.iter().map(read_window).collect(),
        notice_s: o.notice_s.into(),
        open: read_windows("offer.open", &o.open)?,
        withdrawn: o.withdrawn,
        revision: o.revision,
    })
}

/// An operation that loses its place, on the wire.
pub fn disturbed(d: &Disturbed) -> v1::DisturbedOperation {
    v1::DisturbedOperation {
        booking_id: d.booking.to_string(),
        operation: d.operation,
        machine_id: d.machine.to_string(),
        window: Some(window(&d.window)),
    }
}

/// A role on the wire.
pub fn role(r: Role) -> v1::Role {
    match r {
        Role::Buyer => v1::Role::Buyer,
        Role::Member => v1::Role::Member,
        Role::Agent => v1::Role::Agent,
        Role::Operator => v1::Role::Operator,
        Role::Auditor => v1::Role::Auditor,
    }
}

/// Reads a role.
pub fn read_role(value: i32) -> Result<Role, Refusal> {
    Ok(match v1::Role::try_from(value) {
        Ok(v1::Role::Buyer) => Role::Buyer,
        Ok(v1::Role::Member) => Role::Member,
        Ok(v1::Role::Agent) => Role::Agent,
        Ok(v1::Role::Operator) => Role::Operator,
        Ok(v1::Role::Auditor) => Role::Auditor,
        _ => return Err(unknown_enum("principal.role", value, "buyer, member, agent, operator or auditor")),
    })
}

/// Who asks, on the wire.
pub fn caller(c: &Caller) -> state::Caller {
    state::Caller { role: role(c.role).into(), id: c.id.to_string() }
}

/// Reads who asks.
pub fn read_caller(c: &state::Caller) -> Result<Caller, Refusal> {
    Ok(Caller { role: read_role(c.role)?, id: PrincipalId::parse(&c.id)? })
}

/// A principal as the API shows it: without its token.
pub fn principal(p: &Principal) -> v1::Principal {
    v1::Principal {
        id: p.id.to_string(),
        role: role(p.role).into(),
        expires_at_s: p.expires_at,
        revoked: p.revoked,
    }
}

/// A principal with the hash of its token, as the log and snapshots have it.
pub fn principal_with_token(p: &Principal) -> state::Principal {
    state::Principal { principal: Some(principal(p)), token_sha256: p.token_sha256.to_vec().into() }
}

/// Reads a principal with the hash of its token.
pub fn read_principal_with_token(p: state::Principal) -> Result<Principal, Refusal> {
    read_principal(&required("principal", p.principal)?, &p.token_sha256)
}

/// Reads a principal, with the hash of its token.
pub fn read_principal(p: &v1::Principal, token_sha256: &[u8]) -> Result<Principal, Refusal> {
    let token_sha256 = token_sha256.try_into().map_err(|_| {
        Refusal::invalid(Reason::InvalidField, "token_sha256", token_sha256.len(), "32 bytes")
    })?;
    Ok(Principal {
        id: PrincipalId::parse(&p.id)?,
        role: read_role(p.role)?,
        token_sha256,
        expires_at: p.expires_at_s,
        revoked: p.revoked,
    })
}

/// The policy on the wire.
pub fn policy(p: &Policy) -> v1::Policy {
    v1::Policy {
        freeze_s: narrow(p.freeze_s),
        lead_s: narrow(p.lead_s),
        promise_slack_s: narrow(p.promise_slack_s),
        quote_valid_s: narrow(p.quote_valid_s),
        tardiness_fen_per_minute: p.tardiness_fen_per_minute,
        transport: Some(v1::TransportTariff {
            base_s: narrow(p.transport.base_s),
            s_per_km: narrow(p.transport.s_per_km),
            base_fen: p.transport.base_fen,
            fen_per_km: p.transport.fen_per_km,
            g_per_km: p.transport.g_per_km,
        }),
        grid_factors: p
            .grid_factors
            .iter()
            .map(|f| v1::GridFactor {
                region: f.region.clone(),
                year: f.year,
                mg_per_kwh: f.mg_per_kwh,
                basis: f.basis.clone(),
                source: f.source.clone(),
            })
            .collect(),
        request_id_keep_s: narrow(p.request_id_keep_s),
        holds_max_per_buyer: narrow(p.holds_max_per_buyer),
        revision: p.revision,
        history_keep_s: narrow(p.history_keep_s),
        day_start_s: narrow(p.day_start_s),
        shift_s: narrow(p.shift_s),
    }
}

/// Reads the policy.
pub fn read_policy(p: v1::Policy) -> Result<Policy, Refusal> {
    let t = required("policy.transport", p.transport)?;
    Ok(Policy {
        freeze_s: p.freeze_s.into(),
        lead_s: p.lead_s.into(),
        promise_slack_s: p.promise_slack_s.into(),
        quote_valid_s: p.quote_valid_s.into(),
        tardiness_fen_per_minute: p.tardiness_fen_per_minute,
        transport: TransportTariff {
            base_s: t.base_s.into(),
            s_per_km: t.s_per_km.into(),
            base_fen: t.base_fen,
            fen_per_km: t.fen_per_km,
            g_per_km: t.g_per_km,
        },
        grid_factors: p
            .grid_factors
            .into_iter()
            .map(|f| GridFactor {
                region: f.region,
                year: f.year,
                mg_per_kwh: f.mg_per_kwh,
                basis: f.basis,
                source: f.source,
            })
            .collect(),
        request_id_keep_s: p.request_id_keep_s.into(),
        holds_max_per_buyer: p.holds_max_per_buyer.into(),
        revision: p.revision,
        history_keep_s: p.history_keep_s.into(),
        day_start_s: p.day_start_s.into(),
        shift_s: p.shift_s.into(),
    })
}
