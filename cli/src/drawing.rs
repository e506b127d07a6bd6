//! A self-contained SVG, written element by element: what the charts have in common.

use std::fmt::Write as _;

const STYLE: &str = "\
text{font-family:Inter,'Segoe UI','Helvetica Neue',Arial,'DejaVu Sans',sans-serif;fill:#1f2733;font-size:12px}\
.h1{font-size:22px;font-weight:700}.sub{fill:#667085;font-size:12.5px}\
.k{fill:#667085;font-size:11px;letter-spacing:.4px}.v{font-size:17px;font-weight:600}\
.v.bad{fill:#c62f3b}.day{font-weight:600;font-size:12px}.hour{fill:#8591a3;font-size:10.5px}\
.group{font-weight:600;font-size:12.5px}.note{fill:#8591a3;font-size:10.5px}\
.bar{font-size:10.5px;font-weight:600;fill:#fff;pointer-events:none}\
.now{fill:#fff;font-size:10.5px;font-weight:700}";

/// A drawing under way. Lengths are in pixels from the upper left corner.
pub struct Drawing(String);

impl Drawing {
    /// A white sheet of this size, with what a screen reader says of it, and definitions.
    pub fn new(label: &str, (width, height): (f64, f64), definitions: &str) -> Self {
        let mut drawing = Drawing(String::new());
        drawing.put(format_args!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{}\">",
            escaped(label)
        ));
        drawing.put(format_args!("<style>{STYLE}</style><defs>{definitions}</defs>"));
        drawing.rect((0.0, 0.0), (width, height), "fill=\"#fff\"");
        drawing
    }

    /// An element as it is written.
    pub fn put(&mut self, element: std::fmt::Arguments) {
        // Writing to a string does not fail.
        let _written = self.0.write_fmt(element);
        self.0.push('\n');
    }

    /// A text of a class of the style that begins here.
    pub fn text(&mut self, class: &str, x: f64, y: f64, text: &str) {
        self.put(format_args!("<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{}</text>", escaped(text)));
    }

    /// A text of a class of the style that ends here.
    pub fn text_end(&mut self, class: &str, x: f64, y: f64, text: &str) {
        let text = escaped(text);
        self.put(format_args!(
            "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"end\">{text}</text>"
        ));
    }

    /// A rectangle, with whatever else it is.
    pub fn rect(&mut self, at: (f64, f64), size: (f64, f64), rest: &str) {
        let ((x, y), (width, height)) = (at, size);
        self.put(format_args!(
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" {rest}/>"
        ));
    }

    /// The whole.
    pub fn finish(mut self) -> String {
        self.0 += "</svg>\n";
        self.0
    }
}

/// A text of at most so many characters, its end left out where it is longer.
pub fn fitting(text: &str, room: usize) -> String {
    match text.chars().count() > room {
        true => text.chars().take(room.saturating_sub(1)).chain(['…']).collect(),
        false => text.to_owned(),
    }
}

/// A text as XML holds it; control characters, which XML cannot hold, are left out.
pub fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\n' => safe.push('\n'),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => {}
            c => safe.push(c),
        }
    }
    safe
}
