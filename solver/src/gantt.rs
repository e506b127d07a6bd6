//! A plan as a picture: a self-contained SVG, one row a machine.
//!
//! Rows are grouped by plant (by class where there is one plant), closed time is shaded, setups are
//! hatched, a job keeps its colour wherever it runs, and a late job has a dark red outline.

use std::fmt::Write;

use crate::{Assignment, Instance, Objective, Plan, Tick};

const LEFT: f64 = 168.0;
const RIGHT: f64 = 28.0;
const TOP: f64 = 92.0;
const BOTTOM: f64 = 64.0;
const CHART_WIDTH: f64 = 1320.0;
const GROUP_HEAD: f64 = 24.0;
/// Rows beyond this many are drawn low, so that three hundred machines still make one picture.
const TALL_ROWS_MAX: usize = 40;
/// What a day's name takes at the top.
const DAY_WIDTH: f64 = 44.0;
/// A bar narrower than this many pixels carries no label.
const LABEL_WIDTH_MIN: f64 = 30.0;

struct Chart<'a> {
    instance: &'a Instance,
    svg: String,
    from: Tick,
    to: Tick,
    row_height: f64,
    /// By machine: the top of its row.
    tops: Vec<f64>,
    groups: Vec<(String, f64)>,
    height: f64,
}

/// Draws a plan that keeps the rules; what the plan claims of cost and bound goes into the title.
pub fn gantt(instance: &Instance, plan: &Plan) -> String {
    let mut chart = Chart::lay_out(instance, plan);
    chart.open(plan);
    chart.rows();
    chart.axis();
    chart.bars(plan);
    chart.legend();
    chart.svg.push_str("</svg>\n");
    chart.svg
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Digits in groups of three.
fn grouped(n: i64) -> String {
    let digits = n.abs().to_string();
    let mut out = String::from(if n < 0 { "-" } else { "" });
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}

/// Colours far apart for neighbouring numbers: the golden angle around the wheel, at three strengths.
fn colour(job: usize) -> String {
    let hue = (job as f64 * 137.508) % 360.0;
    let (saturation, lightness) = [(52, 68), (46, 58), (60, 76)][job % 3];
    format!("hsl({hue:.0},{saturation}%,{lightness}%)")
}

impl<'a> Chart<'a> {
    fn lay_out(instance: &'a Instance, plan: &Plan) -> Chart<'a> {
        let machines = &instance.shop.machines;
        let end = plan.assignments.iter().map(|a| a.end).max().unwrap_or(0);
        let opens = machines.iter().filter_map(|m| m.calendar.windows().first()).map(|w| w.0);
        let first = opens.chain(plan.assignments.iter().map(|a| a.start)).min().unwrap_or(0);
        let closes = machines.iter().filter_map(|m| m.calendar.windows().last()).map(|w| w.1);
        let last = match instance.objective.is_makespan() {
            false => closes.max().unwrap_or(0).max(end),
            true => end,
        };
        let row_height = if machines.len() <= TALL_ROWS_MAX { 24.0 } else { 13.0 };
        let mut chart = Chart {
            instance,
            svg: String::new(),
            from: if instance.objective.is_makespan() { 0 } else { first },
            to: last.max(first + 1),
            row_height,
            tops: vec![0.0; machines.len()],
            groups: Vec::new(),
            height: 0.0,
        };
        chart.group_rows();
        chart
    }

    fn group_rows(&mut self) {
        let shop = &self.instance.shop;
        let by_plant = shop.plants.len() > 1;
        let group = |m: usize| match by_plant {
            true => shop.plants[shop.machines[m].plant].clone(),
            false => shop.machines[m].class.clone(),
        };
        let mut order: Vec<usize> = (0..shop.machines.len()).collect();
        order.sort_by_cached_key(|&m| {
            (by_plant.then_some(shop.machines[m].plant), group(m), shop.machines[m].class.clone(), m)
        });
        let mut y = TOP;
        let mut current = None;
        for m in order {
            let name = group(m);
            if current.as_ref() != Some(&name) {
                if !name.is_empty() {
                    self.groups.push((name.clone(), y));
                    y += GROUP_HEAD;
                }
                current = Some(name);
            }
            self.tops[m] = y;
            y += self.row_height;
        }
        self.height = y + BOTTOM;
    }

    fn x(&self, t: Tick) -> f64 {
        let share = (t - self.from) as f64 / (self.to - self.from) as f64;
        LEFT + CHART_WIDTH * share.clamp(0.0, 1.0)
    }

    fn put(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = self.svg.write_fmt(text);
    }

    fn open(&mut self, plan: &Plan) {
        let (width, height) = (LEFT + CHART_WIDTH + RIGHT, self.height);
        self.put(format_args!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" \
             height=\"{height:.0}\" font-family=\"Helvetica, Arial, sans-serif\" font-size=\"11\">\n<defs>\
             <pattern id=\"setup\" width=\"5\" height=\"5\" patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\">\
             <rect width=\"5\" height=\"5\" fill=\"#fff\" fill-opacity=\"0.45\"/>\
             <line x1=\"0\" y1=\"0\" x2=\"0\" y2=\"5\" stroke=\"#333\" stroke-width=\"1.6\" stroke-opacity=\"0.55\"/></pattern>\
             </defs>\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
        ));
        let title = escaped(&self.instance.name);
        self.put(format_args!(
            "<text x=\"24\" y=\"34\" font-size=\"20\" font-weight=\"600\" fill=\"#1b2733\">{title}</text>\n"
        ));
        let subtitle = self.subtitle(plan);
        self.put(format_args!(
            "<text x=\"24\" y=\"56\" font-size=\"13\" fill=\"#51606e\">{subtitle}</text>\n"
        ));
    }

    fn subtitle(&self, plan: &Plan) -> String {
        let kept = self.instance.jobs.len() - plan.rejected.len();
        let mut parts = vec![format!("{} machines", self.instance.shop.machines.len())];
        parts.push(format!("{kept} of {} jobs kept", self.instance.jobs.len()));
        if let Some(cost) = plan.objective {
            parts.push(match self.instance.objective {
                Objective::COST => format!("cost {} CNY", grouped(cost / 100)),
                weights if weights.is_makespan() => format!("makespan {}", grouped(cost)),
                _ => format!("objective {}", grouped(cost)),
            });
            if let Some(bound) = plan.bound {
                parts.push(match self.instance.objective {
                    Objective::COST => format!("bound {} CNY", grouped(bound / 100)),
                    _ => format!("bound {}", grouped(bound)),
                });
                parts.push(format!("gap {:.1} %", 100.0 * (cost - bound) as f64 / cost.max(1) as f64));
            }
        }
        parts.join("  ·  ")
    }

    fn rows(&mut self) {
        let (left, right, h) = (LEFT, LEFT + CHART_WIDTH, self.row_height);
        for (name, y) in std::mem::take(&mut self.groups) {
            let (base, name) = (y + 16.0, escaped(&name));
            self.put(format_args!(
                "<text x=\"24\" y=\"{base:.1}\" font-size=\"12\" font-weight=\"600\" fill=\"#1b2733\">{name}</text>\n"
            ));
        }
        for m in 0..self.tops.len() {
            let (y, machine) = (self.tops[m], &self.instance.shop.machines[m]);
            let base = y + h / 2.0 + 3.5;
            let size = if h > 20.0 { 11 } else { 9 };
            let label = match machine.class.is_empty() {
                true => format!("machine {}", escaped(&machine.id)),
                false => format!(
                    "{} <tspan fill=\"#8894a0\">{}</tspan>",
                    escaped(&machine.id),
                    escaped(&machine.class)
                ),
            };
            self.put(format_args!(
                "<text x=\"{:.1}\" y=\"{base:.1}\" text-anchor=\"end\" font-size=\"{size}\" fill=\"#333f4b\">{label}</text>\n\
                 <rect x=\"{left}\" y=\"{:.1}\" width=\"{CHART_WIDTH}\" height=\"{:.1}\" fill=\"#e3e7eb\"/>\n",
                left - 10.0, y + 1.0, h - 2.0
            ));
            for &(open, close) in machine.calendar.windows() {
                let (a, b) = (self.x(open), self.x(close).min(right));
                self.put(format_args!(
                    "<rect x=\"{a:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"#fbfcfd\"/>\n",
                    y + 1.0,
                    b - a,
                    h - 2.0
                ));
            }
        }
    }

    /// Day marks where a tick is a part of a day and the chart spans days; round tick counts else.
    fn axis(&mut self) {
        let day = 86_400 / self.instance.tick_seconds;
        let by_day = !self.instance.objective.is_makespan() && day > 1 && self.to - self.from > day;
        let step = if by_day { day } else { round_step((self.to - self.from) / 10) };
        let mut t = (self.from + step - 1) / step * step;
        let (top, bottom) = (TOP - 6.0, self.height - BOTTOM + 4.0);
        while t <= self.to {
            let x = self.x(t);
            let fits = !by_day || x + DAY_WIDTH < LEFT + CHART_WIDTH + RIGHT;
            let label = match by_day {
                true if fits => format!("day {}", t / day + 1),
                true => String::new(),
                false => grouped(t),
            };
            let anchor = if by_day { "start" } else { "middle" };
            self.put(format_args!(
                "<line x1=\"{x:.1}\" y1=\"{top}\" x2=\"{x:.1}\" y2=\"{bottom:.1}\" stroke=\"#9aa7b4\" stroke-width=\"0.7\"/>\n\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\" fill=\"#51606e\">{label}</text>\n",
                if by_day { x + 3.0 } else { x }, top - 4.0
            ));
            t += step;
        }
    }

    fn bars(&mut self, plan: &Plan) {
        let mut ends = vec![0; self.instance.jobs.len()];
        for a in &plan.assignments {
            ends[a.job] = ends[a.job].max(a.end);
        }
        let mut lines: Vec<Vec<&Assignment>> = vec![Vec::new(); self.tops.len()];
        plan.assignments.iter().for_each(|a| lines[a.machine].push(a));
        for (m, line) in lines.iter_mut().enumerate() {
            line.sort_by_key(|a| a.start);
            let mut family = None;
            for a in line.iter() {
                let next = self.instance.jobs[a.job].ops[a.op].family;
                let setup = self.instance.shop.setup_ticks(m, family, next);
                let late =
                    !self.instance.objective.is_makespan() && ends[a.job] > self.instance.jobs[a.job].due;
                self.bar(a, setup, late);
                family = Some(next);
            }
        }
    }

    fn bar(&mut self, a: &Assignment, setup: Tick, late: bool) {
        let (job, machine) = (&self.instance.jobs[a.job], &self.instance.shop.machines[a.machine]);
        let (x, y, h) = (self.x(a.start), self.tops[a.machine] + 2.0, self.row_height - 4.0);
        let width = (self.x(a.end) - x).max(0.6);
        let (stroke, stroke_width) = if late { ("#b3261e", 1.6) } else { ("#5b6770", 0.5) };
        let (id, fill) = (escaped(&job.id), colour(a.job));
        self.put(format_args!(
            "<g><title>{id}/{}: {} to {} on {}, setup {setup}{}</title>\
             <rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{h:.1}\" rx=\"1.5\" fill=\"{fill}\" \
             stroke=\"{stroke}\" stroke-width=\"{stroke_width}\"/>",
            a.op, a.start, a.end, escaped(&machine.id), if late { ", late" } else { "" }
        ));
        if setup > 0 {
            let done = machine.calendar.finish(a.start, setup, true).unwrap_or(a.end);
            let hatched = (self.x(done) - x).max(0.6);
            self.put(format_args!(
                "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{hatched:.1}\" height=\"{h:.1}\" fill=\"url(#setup)\"/>"
            ));
        }
        if width >= LABEL_WIDTH_MIN.max(5.4 * job.id.chars().count() as f64 + 3.0) && h > 12.0 {
            let (middle, base) = (x + width / 2.0, y + h / 2.0 + 3.5);
            self.put(format_args!(
                "<text x=\"{middle:.1}\" y=\"{base:.1}\" text-anchor=\"middle\" font-size=\"9\" fill=\"#14202b\">{id}</text>"
            ));
        }
        self.svg.push_str("</g>\n");
    }

    fn legend(&mut self) {
        if self.instance.objective.is_makespan() {
            return;
        }
        let y = self.height - 30.0;
        let entries = [
            ("fill=\"#fbfcfd\" stroke=\"#9aa7b4\" stroke-width=\"0.7\"", "open"),
            ("fill=\"#e3e7eb\" stroke=\"#9aa7b4\" stroke-width=\"0.7\"", "closed"),
            ("fill=\"hsl(210,52%,68%)\" stroke=\"#5b6770\" stroke-width=\"0.5\"", "work (one colour a job)"),
            ("fill=\"url(#setup)\" stroke=\"#5b6770\" stroke-width=\"0.5\"", "setup"),
            ("fill=\"hsl(40,52%,68%)\" stroke=\"#b3261e\" stroke-width=\"1.6\"", "of a late job"),
        ];
        let mut x = LEFT;
        for (look, label) in entries {
            self.put(format_args!(
                "<rect x=\"{x}\" y=\"{:.1}\" width=\"26\" height=\"13\" rx=\"1.5\" {look}/>\n\
                 <text x=\"{}\" y=\"{:.1}\" fill=\"#51606e\">{label}</text>\n",
                y - 10.0,
                x + 33.0,
                y + 1.0
            ));
            x += 33.0 + 6.0 * label.len() as f64 + 34.0;
        }
    }
}

/// The next 1, 2 or 5 times a power of ten.
fn round_step(least: Tick) -> Tick {
    let mut power = 1;
    loop {
        for factor in [1, 2, 5] {
            if factor * power >= least {
                return factor * power;
            }
        }
        power *= 10;
    }
}
