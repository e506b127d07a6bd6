//! What a step tries, as the state and its dice have it.

use super::*;

impl Run {
    pub(super) fn command(&mut self, kind: Kind, dice: &mut Dice) -> Option<(Caller, Command)> {
        let mut caller = operator();
        let command = match kind {
            Kind::Tick | Kind::Repeat => Command::Tick,
            Kind::PutMember => {
                let id = dice.of(&["ya", "bao", "cui"]);
                let known = self.state.members().get(&MemberId::trusted(id)).map_or(0, |m| m.revision);
                Command::PutMember { member: member(id), expected_revision: dice.of(&[known, known, 7]) }
            }
            Kind::PutPlant => self.put_plant(dice)?,
            Kind::PutMachine => self.put_machine(dice),
            Kind::PutPolicy => {
                let known = self.state.policy().clone();
                let expected_revision = dice.of(&[known.revision, known.revision, 3]);
                let freeze_s = dice.of(&[0, HOUR, 2 * HOUR, -1, i64::MAX]);
                let transport =
                    TransportTariff { base_s: dice.of(&[known.transport.base_s, 1200]), ..known.transport };
                let history_keep_s = dice.of(&[known.history_keep_s, 0, 60, HOUR]);
                let day_start_s = dice.of(&[known.day_start_s, 0, 16 * HOUR, 61]);
                let shift_s = dice.of(&[known.shift_s, 0, 6 * HOUR, DAY]);
                let policy = Policy { freeze_s, transport, history_keep_s, day_start_s, shift_s, ..known };
                Command::PutPolicy { policy, expected_revision }
            }
            Kind::RaiseFormat => Command::RaiseFormat { to: Format::NEWEST },
            Kind::PutPrincipal => Command::PutPrincipal(Principal {
                id: PrincipalId::trusted(dice.of(&["bo", "bi", "ya"])),
                role: dice.of(&[Role::Buyer, Role::Member]),
                token_sha256: [dice.of(&[1, 2, 3, 4]); 32],
                expires_at: self.now + dice.of(&[-5, DAY]),
                revoked: false,
            }),
            Kind::RevokePrincipal => {
                let known: Vec<_> = self.state.principals().iter().map(|(key, _)| key.clone()).collect();
                let nobody = (Role::Auditor, PrincipalId::trusted("nobody"));
                let (role, id) = dice.pick(&known).cloned().unwrap_or(nobody);
                Command::RevokePrincipal { role, id }
            }
            Kind::CreateOffer => {
                let machine = self.some_machine(dice);
                Command::CreateOffer(self.offer(machine.as_str(), dice))
            }
            Kind::WithdrawOffer => {
                let standing = |o: &&Arc<offer::Offer>| !o.withdrawn;
                let ids: Vec<OfferId> =
                    self.state.offers().values().filter(standing).map(|o| o.id.clone()).collect();
                let offer = if dice.one_in(9) { OfferId::trusted("o1") } else { dice.pick(&ids)?.clone() };
                Command::WithdrawOffer { offer, accept_disturbance: !dice.one_in(3) }
            }
            Kind::BookWell | Kind::BookBlindly => {
                caller = buyer(dice.of(&["bo", "bi"]));
                self.book(kind, caller.id.clone(), dice)?
            }
            Kind::Confirm => {
                let booking = self.some_booking(dice, |b| b.status == Status::Held)?;
                caller = self.owner(&booking, dice);
                Command::Confirm { booking }
            }
            Kind::Cancel => {
                let booking = self.some_booking(dice, Booking::is_open)?;
                caller = self.owner(&booking, dice);
                Command::Cancel { booking, reason: "no longer wanted".into() }
            }
            Kind::OpenSession => {
                let planned = |_: &Booking, s: &booking::Step| !s.is_finished();
                let (booking, operation, _, start, _) = self.some_step(dice, planned)?;
                self.now = if dice.one_in(3) { self.now } else { self.now.max(start) };
                caller = self.owner(&booking, dice);
                Command::OpenSession { booking, operation }
            }
            Kind::CloseSession => {
                let session = self.some_session(dice)?;
                caller = self.of_a_session(&session, dice);
                Command::CloseSession { session, because: dice.of(&["", "lunch"]).into() }
            }
            Kind::Operate => {
                let session = self.some_session(dice)?;
                caller = self.of_a_session(&session, dice);
                let verb = dice.of(&remote::Verb::TABLE.map(|(verb, ..)| verb));
                Command::Operate(self.asked(session, verb, dice))
            }
            Kind::MoveWell => {
                let thaw = self.now.max(self.state.now()) + self.state.policy().freeze_s.max(3 * HOUR);
                let from = if dice.one_in(6) { 0 } else { thaw };
                self.moves(dice, PlanKind::Optimisation, |b, k| {
                    b.steps[k].is_planned() && b.steps[k].place.as_ref().is_some_and(|p| p.start >= from)
                })?
            }
            Kind::Repair => self.moves(dice, PlanKind::Repair, |b, k| b.steps[k].place.is_none())?,
            Kind::MoveBlindly => self.blind_moves(dice)?,
            Kind::Silence => {
                let since = dice.one_in(2).then(|| self.now - dice.below(7200) as i64);
                Command::NoteSilence { plant: self.some_plant(dice), since }
            }
            Kind::Attach => {
                let plant = self.some_plant(dice);
                self.attach_command(&plant, dice)
            }
            _ => self.report(kind, dice)?,
        };
        Some((caller, command))
    }

    fn some_machine(&self, dice: &mut Dice) -> MachineId {
        let ids: Vec<MachineId> = self.state.stations().iter().map(|(id, _)| id.clone()).collect();
        if dice.one_in(40) {
            machine_id("nowhere")
        } else {
            dice.pick(&ids).cloned().unwrap_or(machine_id("m0"))
        }
    }

    fn some_plant(&self, dice: &mut Dice) -> PlantId {
        let ids: Vec<PlantId> = self.state.plants().iter().map(|(id, _)| id.clone()).collect();
        dice.pick(&ids).cloned().unwrap_or(PlantId::trusted("ya-1"))
    }

    /// A booking, mostly one that it makes sense for.
    fn some_booking(&self, dice: &mut Dice, sense: impl Fn(&Booking) -> bool) -> Option<BookingId> {
        let any = dice.one_in(8);
        let fits = |b: &&Arc<Booking>| any || sense(b);
        let ids: Vec<BookingId> = self.state.bookings().values().filter(fits).map(|b| b.id).collect();
        dice.pick(&ids).cloned()
    }

    fn owner(&self, booking: &BookingId, dice: &mut Dice) -> Caller {
        match self.state.bookings().get(booking) {
            Some(known) if !dice.one_in(12) => Caller { role: Role::Buyer, id: known.buyer.clone() },
            _ => buyer("bu"),
        }
    }

    fn some_session(&self, dice: &mut Dice) -> Option<SessionId> {
        let open = |session: &&Arc<remote::Session>| session.is_open() && session.closes_at > self.now;
        let open: Vec<_> = self.state.sessions().values().filter(open).map(|session| session.id).collect();
        let known: Vec<_> = self.state.sessions().values().map(|session| session.id).collect();
        let among = if open.is_empty() || dice.one_in(4) { known } else { open };
        dice.pick(&among).copied()
    }

    /// What goes with a verb, or nearly.
    fn asked(&self, session: SessionId, verb: remote::Verb, dice: &mut Dice) -> remote::Asked {
        use remote::Takes;
        let valid_s = dice.of(&[5, 5, 30, 0]);
        let plain = remote::Asked::plain(session, verb, valid_s);
        let takes = match dice.one_in(8) {
            true => dice.of(&[Takes::Nothing, Takes::Job, Takes::Content, Takes::Sealed, Takes::Span]),
            false => verb.takes(),
        };
        let sha256 = Some(Sha256([dice.below(4) as u8; 32]));
        let program = dice.of(&["P1", "P1.nc", "../P1"]).into();
        match takes {
            Takes::Nothing => plain,
            Takes::Job => remote::Asked { program, sha256: sha256.filter(|_| dice.one_in(2)), ..plain },
            Takes::Content => {
                remote::Asked { program, sha256, bytes: dice.of(&[1, 4096, u64::MAX]), ..plain }
            }
            Takes::Sealed => remote::Asked { program, sha256, ..plain },
            Takes::Span => remote::Asked { consent_s: dice.of(&[600, 1, -1]), ..plain },
        }
    }

    /// Somebody who has to do with a session, or has not.
    fn of_a_session(&self, id: &SessionId, dice: &mut Dice) -> Caller {
        let holder = self.state.sessions().get(id).map(|session| session.holder.clone());
        let holder = holder.map(|id| Caller { role: Role::Buyer, id });
        let member = Caller { role: Role::Member, id: PrincipalId::trusted("ya") };
        match dice.below(6) {
            0 => member,
            1 => buyer("bu"),
            _ => holder.unwrap_or(member),
        }
    }

    fn put_plant(&mut self, dice: &mut Dice) -> Option<Command> {
        let id = self.some_plant(dice);
        let known = Plant::clone(self.state.plants().get(&id)?);
        let expected_revision = dice.of(&[known.revision, known.revision, known.revision, 0]);
        let north_m = dice.of(&[known.north_m, 5_000, 90_000, i64::MAX]);
        Some(Command::PutPlant { plant: Plant { north_m, ..known }, expected_revision })
    }

    fn put_machine(&mut self, dice: &mut Dice) -> Command {
        let id = if dice.one_in(4) { machine_id("m9") } else { self.some_machine(dice) };
        let Some(known) = self.state.stations().get(&id).map(|s| Machine::clone(&s.machine)) else {
            return Command::PutMachine { machine: self.machine(id.as_str(), dice), expected_revision: 0 };
        };
        let expected_revision = known.revision;
        let other = self.machine(id.as_str(), dice);
        let machine = match dice.below(5) {
            0 => Machine { changeovers: other.changeovers, setup_families: other.setup_families, ..known },
            1 => Machine { rate_fen_per_hour: known.rate_fen_per_hour * 2, ..known },
            2 => Machine { plant: other.plant, ..known },
            3 => Machine { changeover_default_s: other.changeover_default_s, ..known },
            _ => other,
        };
        Command::PutMachine { machine, expected_revision }
    }

    pub(super) fn machine(&self, id: &str, dice: &mut Dice) -> Machine {
        use MachineClass::*;
        let class = dice.of(&[Mill, Mill, Mill, FiveAxis, Lathe, Grinder, Cmm]);
        let families = dice.some_of(&["a", "b", "c", "d"]);
        let mut changeovers = Vec::new();
        for from in &families {
            for to in &families {
                if dice.one_in(2) {
                    // Longer than the way over a third family, now and then: no triangle inequality.
                    let seconds = dice.of(&[0, 10, 20, 60, 180]) * MINUTE;
                    changeovers.push(Changeover { from: from.clone(), to: to.clone(), seconds });
                }
            }
        }
        let plant = self.some_plant(dice);
        Machine {
            class,
            axes: dice.of(&[3, 5]),
            tolerance_um: dice.of(&[5, 20]),
            materials: dice.some_of(&["steel", "aluminium", "titanium"]),
            certificates: dice.some_of(&["iso-9001", "as-9100"]),
            changeover_default_s: dice.of(&[0, 30, 90]) * MINUTE,
            initial_family: if dice.one_in(2) { families.first().cloned() } else { None },
            setup_families: families,
            changeovers,
            speed_permille: dice.of(&[700, 1000, 1000, 1400]),
            rate_fen_per_hour: dice.of(&[0, 20_000, 36_000, 50_001]),
            ..machine(id, plant.as_str(), class)
        }
    }

    pub(super) fn offer(&mut self, machine: &str, dice: &mut Dice) -> offer::Offer {
        self.given += 1;
        let id = if dice.one_in(20) { "o1".into() } else { format!("o{}", self.given) };
        let from = self.now - self.now.rem_euclid(HOUR) + dice.of(&[-5, 0, 3]) * HOUR;
        let mut lent = offer(&id, machine, &[(from, from + dice.of(&[9, 40, 300]) * HOUR)]);
        lent.notice_s = dice.of(&[0, 0, 0, 3 * HOUR]);
        if dice.one_in(2) {
            let weekdays = (1..=7).filter(|_| !dice.one_in(4)).chain([1]).collect();
            let (start_minute, end_minute) = dice.of(&[(0, 1440), (480, 960), (1320, 361), (540, 545)]);
            lent.shifts = vec![Shift { weekdays, start_minute, end_minute }];
            (lent.from, lent.until) = (from, from + dice.of(&[3, 14]) * DAY);
        }
        if dice.one_in(3) {
            let hole = from + dice.of(&[2, 8, 30]) * HOUR + dice.of(&[0, 30]);
            lent.except = vec![Window::new(hole, hole + dice.of(&[1, 90, 6000]))];
        }
        let single = lent.clone();
        if lent.expand("Europe/Berlin").is_err() {
            return single;
        }
        lent
    }

    /// An order that some machine could make, mostly.
    fn order(&self, dice: &mut Dice) -> Option<Order> {
        let stations: Vec<Arc<Station>> = self.state.stations().values().cloned().collect();
        let patron = dice.pick(&stations)?.machine.clone();
        let material = dice.pick(&patron.materials.iter().cloned().collect::<Vec<_>>())?.clone();
        let mut route = Vec::new();
        for _ in 0..1 + dice.below(3) {
            let able: Vec<&Arc<Station>> =
                stations.iter().filter(|s| s.machine.materials.contains(&material)).collect();
            let model = &dice.pick(&able)?.machine;
            let families: Vec<String> = model.setup_families.iter().cloned().collect();
            let mut wanted = operation(model.class, dice.pick(&families)?, dice.of(&[7, 30, 60, 200, 700]));
            wanted.setup_s = dice.of(&[0, 0, 90, 600]);
            wanted.splittable = dice.one_in(3);
            wanted.axes_min = dice.of(&[0, 3, 3, 5]);
            wanted.tolerance_um = dice.of(&[0, 10, 20]);
            if dice.one_in(6) {
                wanted.certificates = names(&["as-9100"]);
            }
            route.push(wanted);
        }
        let now = self.state.now().max(self.now);
        let due = now + dice.of(&[8 * HOUR, 2 * DAY, 9 * DAY]);
        let mut order = Order { quantity: dice.of(&[1, 1, 3]), material, due, ..order(route) };
        if dice.one_in(4) {
            order.release = now + dice.of(&[10 * MINUTE, 7 * HOUR + 1]);
            order.due = order.due.max(order.release + 1);
        }
        if dice.one_in(3) {
            order.deadline = Some(order.due + dice.of(&[0, DAY]));
        }
        if dice.one_in(9) {
            order.budget_fen = Some(dice.of(&[1, 50_000, 500_000, 5_000_000]));
        }
        if dice.one_in(9) {
            order.excluded_plants = [self.some_plant(dice)].into();
        }
        Some(order)
    }

    fn book(&mut self, kind: Kind, buyer: PrincipalId, dice: &mut Dice) -> Option<Command> {
        let order = self.order(dice)?;
        let placement = if kind == Kind::BookBlindly {
            let start = |run: &Run, dice: &mut Dice| match dice.below(6) {
                0 => dice.of(&[0, i64::MAX, i64::MIN, i64::MAX - 59, run.now + 1]),
                _ => ceil_tick(run.now) + dice.below(96) as i64 * 30 * MINUTE,
            };
            (0..order.route.len() + usize::from(dice.one_in(9)))
                .map(|_| (self.some_machine(dice), start(self, dice)))
                .collect()
        } else {
            let steps: Vec<usize> = (0..order.route.len()).collect();
            let mut board = self.board();
            self.place(&mut board, &BookingId::numbered(u64::MAX), &order, &steps, None, dice)?
        };
        let mut order = order;
        match dice.below(90) {
            0 => order.quantity = dice.of(&[0, -1, i64::MAX]),
            1 => order.due = dice.of(&[0, i64::MAX, i64::MIN]),
            2 => order.release = dice.of(&[1, i64::MAX, i64::MIN]),
            3 => order.route[0].run_s_per_piece = dice.of(&[0, i64::MAX]),
            4 => order.deadline = Some(dice.of(&[0, i64::MAX, i64::MIN])),
            _ => {}
        }
        let mut terms = terms(dice.of(&[Objective::Fastest, Objective::Cheapest, Objective::Greenest]));
        if dice.one_in(6) {
            terms.promised_by = Some(dice.of(&[self.now + 6 * HOUR, self.now + 3 * DAY, i64::MIN, i64::MAX]));
        }
        if dice.one_in(12) {
            terms.price_max_fen = Some(dice.of(&[40_000, 400_000, 4_000_000, i64::MIN]));
        }
        let hold_s = match dice.below(24) {
            0..=8 => dice.of(&[60, HOUR, 20 * HOUR]),
            9 => dice.of(&[-1, i64::MAX]),
            _ => 0,
        };
        Some(Command::Book { buyer, order: Arc::new(order), terms, placement, hold_s })
    }

    /// Every machine as the greedy placer's scratch paper.
    fn board(&self) -> BTreeMap<MachineId, Station> {
        self.state.stations().iter().map(|(id, s)| (id.clone(), Station::clone(s))).collect()
    }

    /// Places the operations `steps` of an order greedily, one after another. `earlier` is where and when
    /// the part comes from.
    fn place(
        &self,
        board: &mut BTreeMap<MachineId, Station>,
        id: &BookingId,
        order: &Order,
        steps: &[usize],
        mut earlier: Option<(MachineId, i64)>,
        dice: &mut Dice,
    ) -> Option<Vec<(MachineId, i64)>> {
        let mut placed = Vec::new();
        for &k in steps {
            let (machine, start, end, station) =
                self.best_place(board, id, order, k, earlier.as_ref(), dice)?;
            board.insert(machine.clone(), station);
            placed.push((machine.clone(), start));
            earlier = Some((machine, end));
        }
        Some(placed)
    }

    fn best_place(
        &self,
        board: &BTreeMap<MachineId, Station>,
        id: &BookingId,
        order: &Order,
        k: usize,
        earlier: Option<&(MachineId, i64)>,
        dice: &mut Dice,
    ) -> Option<(MachineId, i64, i64, Station)> {
        let wanted = &order.route[k];
        let mut best: Option<(MachineId, i64, i64, Station)> = None;
        let fussy = !dice.one_in(40);
        for (machine, station) in board {
            if (fussy && !eligible(order, wanted, &station.machine)) || dice.one_in(5) {
                continue;
            }
            let arrives = earlier.map_or(0, |(from, end)| end + self.state.trip(from, machine).seconds);
            let lead_s = self.state.earliest_start(station) - self.state.now();
            let soonest = (self.now.max(self.state.now()) + lead_s).max(order.release).max(arrives);
            let soonest = ceil_tick(soonest) + dice.of(&[0, 0, 0, 2 * HOUR, DAY]);
            let mut starts = vec![soonest];
            starts.extend(station.open.iter().map(|w| w.start).filter(|s| *s > soonest));
            starts.extend(station.line.iter().map(|o| ceil_tick(o.end)).filter(|s| *s > soonest));
            starts.sort_unstable();
            let work_s = price::reckon(wanted, order.quantity, &station.machine).work_s;
            for start in starts.into_iter().take(12) {
                let mut scratch = station.clone();
                scratch.put(Station::planned(
                    id,
                    k as u32,
                    &wanted.setup_family,
                    start,
                    work_s,
                    wanted.splittable,
                ));
                if !scratch.settle().broken.is_empty() {
                    continue;
                }
                let end = scratch.find(id, k as u32).map(|at| scratch.line[at].end)?;
                if best.as_ref().is_none_or(|b| end < b.2) {
                    best = Some((machine.clone(), start, end, scratch));
                }
                break;
            }
        }
        best
    }

    /// Places operations of one or two bookings anew, greedily.
    fn moves(
        &self,
        dice: &mut Dice,
        kind: PlanKind,
        which: impl Fn(&Booking, usize) -> bool,
    ) -> Option<Command> {
        let fits = |b: &&Arc<Booking>| b.is_open() && (0..b.steps.len()).any(|k| which(b, k));
        let mut bookings: Vec<Arc<Booking>> = self.state.bookings().values().filter(fits).cloned().collect();
        let mut board = self.board();
        let mut moves = Vec::new();
        for _ in 0..1 + dice.below(2) {
            if bookings.is_empty() {
                break;
            }
            let booking = bookings.swap_remove(dice.below(bookings.len()));
            let first = (0..booking.steps.len()).find(|&k| which(&booking, k))?;
            let steps: Vec<usize> =
                (first..booking.steps.len()).filter(|&k| booking.steps[k].is_planned()).collect();
            for &k in &steps {
                for station in board.values_mut() {
                    station.take(&booking.id, k as u32);
                    station.settle();
                }
            }
            let earlier = first.checked_sub(1).and_then(|p| booking.steps[p].place.as_ref());
            let earlier = earlier.map(|p| (p.machine.clone(), p.end));
            let Some(placed) = self.place(&mut board, &booking.id, &booking.order, &steps, earlier, dice)
            else {
                continue;
            };
            moves.extend(steps.iter().zip(placed).map(|(&k, (machine, start))| Move {
                booking: booking.id,
                operation: k as u32,
                machine,
                start,
            }));
        }
        (!moves.is_empty()).then(|| self.plan(dice, kind, moves))
    }

    fn blind_moves(&self, dice: &mut Dice) -> Option<Command> {
        let mut moves = Vec::new();
        for _ in 0..1 + dice.below(3) {
            let booking = self.some_booking(dice, Booking::is_open)?;
            let start = match dice.below(9) {
                0 => dice.of(&[0, i64::MIN, i64::MAX, self.now + 7]),
                _ => ceil_tick(self.now) + dice.below(200) as i64 * 15 * MINUTE,
            };
            let known = self.state.bookings().get(&booking)?;
            let operation = dice.below(known.steps.len()) as u32;
            if let Some(place) = known.steps[operation as usize].place.as_ref().filter(|_| !dice.one_in(4)) {
                // A little sooner or later where it stands.
                let start = place.start + dice.of(&[-60, -15, 1, 15, 45, 300]) * MINUTE;
                moves.push(Move { booking, operation, machine: place.machine.clone(), start });
                continue;
            }
            moves.push(Move {
                booking,
                operation: dice.of(&[0, 0, 1, 2, 99]),
                machine: self.some_machine(dice),
                start,
            });
        }
        if dice.one_in(3) {
            let twice = Move { machine: self.some_machine(dice), ..moves[0].clone() };
            moves.push(twice);
        }
        let kind = dice.of(&[PlanKind::Optimisation, PlanKind::Repair]);
        Some(self.plan(dice, kind, moves))
    }

    fn plan(&self, dice: &mut Dice, kind: PlanKind, moves: Vec<Move>) -> Command {
        let base_revision = self.log.len() as u64 - dice.of(&[0, 0, 0, 0, 1, 6]).min(self.log.len() as u64);
        Command::CommitPlan { kind, base_revision, moves, figures: PlanFigures::default() }
    }

    // What plants report.

    pub(super) fn attach(&mut self, plant: &PlantId, dice: &mut Dice) -> Result<(), String> {
        let command = self.attach_command(plant, dice);
        self.must(command)
    }

    fn attach_command(&mut self, plant: &PlantId, dice: &mut Dice) -> Command {
        let known = self.outboxes.entry(plant.clone()).or_default();
        if known.is_empty() || dice.one_in(2) {
            self.given += 1;
            known.push(Outbox { name: format!("outbox-{}", self.given), sent: Vec::new() });
        } else if dice.one_in(2) {
            let again = known.remove(dice.below(known.len()));
            known.push(again);
        }
        let outbox = known.last().map(|o| o.name.clone()).unwrap_or_default();
        Command::AttachAgent { plant: plant.clone(), agent: "agent".into(), outbox }
    }

    /// An operation that `sense` speaks for: booking, index, machine, start and end.
    fn some_step(
        &self,
        dice: &mut Dice,
        sense: impl Fn(&Booking, &booking::Step) -> bool,
    ) -> Option<(BookingId, u32, MachineId, i64, i64)> {
        let mut found = Vec::new();
        for booking in self.state.open_bookings() {
            for (k, step) in booking.steps.iter().enumerate() {
                let Some(place) = &step.place else {
                    if step.is_planned() && dice.one_in(9) {
                        found.push((booking.id, k as u32, self.some_machine(dice), self.now, self.now));
                    }
                    continue;
                };
                if sense(booking, step) {
                    found.push((booking.id, k as u32, place.machine.clone(), place.start, place.end));
                }
            }
        }
        found.sort_by_key(|f| f.3);
        let soon = if dice.one_in(4) { found.len() } else { found.len().min(2) };
        dice.pick(&found[..soon]).cloned()
    }

    fn happening(&mut self, kind: Kind, dice: &mut Dice) -> Option<(MachineId, Happening)> {
        let planned = |_: &Booking, s: &booking::Step| s.is_planned();
        let running = |_: &Booking, s: &booking::Step| matches!(s.progress, Progress::Running { .. });
        let sometimes_any = dice.one_in(9);
        let in_hand = |b: &Booking, s: &booking::Step| running(b, s) || (sometimes_any && planned(b, s));
        Some(match kind {
            Kind::Start => {
                let (booking, operation, machine, start, _) = self.some_step(dice, planned)?;
                let from = start + dice.of(&[0, 0, 0, 29, -40 * MINUTE, 20 * MINUTE, 3 * HOUR]);
                self.now = if dice.one_in(6) { self.now } else { self.now.max(from) };
                (machine, Happening::Started { booking, operation })
            }
            Kind::Progress => {
                let (booking, operation, machine, _, end) = self.some_step(dice, in_hand)?;
                let late = dice.of(&[0, 60, 61, 45 * MINUTE, 5 * HOUR, -HOUR]);
                let expected_end = dice.of(&[end + late, end + late, end + late, i64::MAX, i64::MIN, 0]);
                let expected_end = if dice.one_in(5) { expected_end } else { end + late };
                (machine, Happening::Progress { booking, operation, pieces_good: 1, expected_end })
            }
            Kind::Finish => {
                let (booking, operation, machine, _, end) = self.some_step(dice, in_hand)?;
                let at = end + dice.of(&[0, 0, 0, -20 * MINUTE, 31, 4 * HOUR]);
                self.now = if dice.one_in(6) { self.now } else { self.now.max(at) };
                let what = Happening::Finished {
                    booking,
                    operation,
                    pieces_good: 1,
                    pieces_scrapped: dice.of(&[0, u32::MAX]),
                    measured_s: dice.of(&[HOUR, 0, i64::MIN, i64::MAX]),
                    energy_wh: dice.of(&[5, u64::MAX]),
                    energy_measured: true,
                };
                (machine, what)
            }
            Kind::Scrap => {
                let (booking, operation, machine, ..) = self.some_step(dice, in_hand)?;
                let reason = dice.of(&["tool broke", "two\nlines"]).into();
                (machine, Happening::Scrapped { booking, operation, pieces_scrapped: 2, reason })
            }
            Kind::Down => {
                let until =
                    dice.of(&[0, self.now + 2 * HOUR, self.now + DAY + 7, self.now - 1, i64::MAX, i64::MIN]);
                (self.some_machine(dice), Happening::Down { reason: "spindle".into(), expected_until: until })
            }
            Kind::Operated => {
                let session = self.some_session(dice)?;
                let known = self.state.sessions().get(&session)?;
                let nonce = dice.of(&[known.commands.len() as u32, 1, 0, u32::MAX]);
                let verdict = dice.of(&[remote::Verdict::Done, remote::Verdict::Refused]);
                let outcome = remote::Outcome {
                    verdict,
                    at: self.now,
                    words: "as\ntold".into(),
                    consent: String::new(),
                    interlocks: Vec::new(),
                    return_status: 1,
                };
                let taken_back = dice.one_in(4);
                (known.machine.clone(), Happening::Operated { session, nonce, outcome, taken_back })
            }
            Kind::Up => (self.some_machine(dice), Happening::Up),
            _ => (self.some_machine(dice), Happening::State(MachineState::Producing)),
        })
    }

    fn report(&mut self, kind: Kind, dice: &mut Dice) -> Option<Command> {
        let (mut machine, what) = self.happening(kind, dice)?;
        if dice.one_in(10) {
            machine = self.some_machine(dice);
        }
        let plant = self.state.stations().get(&machine).map(|s| s.machine.plant.clone());
        let plant = plant.unwrap_or_else(|| self.some_plant(dice));
        let at =
            if dice.one_in(8) { dice.of(&[0, i64::MIN, i64::MAX, self.now - 3 * HOUR]) } else { self.now };
        let outbox = self.outboxes.get_mut(&plant)?.last_mut()?;
        let seq = outbox.sent.len() as u64 + 1;
        let event = Event { seq, at, machine, what };
        let name = outbox.name.clone();
        let report = |events| Some(Command::Report { plant: plant.clone(), outbox: name, events });
        match dice.below(24) {
            0 => return report(vec![Event { seq: dice.of(&[seq + 1, 0, u64::MAX]), ..event }]),
            1 => {
                return Some(Command::Report {
                    plant: plant.clone(),
                    outbox: "another".into(),
                    events: vec![event],
                });
            }
            // A batch that was delivered before, and nothing new.
            2..=4 => return report(outbox.sent.iter().rev().take(3).rev().cloned().collect()),
            _ => {}
        }
        outbox.sent.push(event);
        let repeated = dice.of(&[0, 0, 1, 3]);
        report(outbox.sent.iter().rev().take(1 + repeated).rev().cloned().collect())
    }
}
