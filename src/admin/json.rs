//! JSON as Apache's admin server prints it (Jackson's `DefaultPrettyPrinter`): two blanks a level, a blank on both sides
//! of the colon, lists on one line. Scripts that grep were written against this form. Pure.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::Formatter;
use serde_json::{Map, Serializer, Value};

/// Members of an object, in their order.
pub type Fields = Map<String, Value>;

/// The text of an object.
pub fn text(fields: &Fields) -> String {
    let mut out = Vec::new();
    let mut serializer = Serializer::with_formatter(&mut out, Jackson { levels: 0, empty: false });
    fields.serialize(&mut serializer).expect("values are written to memory");
    String::from_utf8(out).expect("JSON is UTF-8")
}

struct Jackson {
    levels: usize,
    /// Nothing was written since the last opening.
    empty: bool,
}

impl Jackson {
    fn new_line<W: ?Sized + Write>(&self, out: &mut W) -> io::Result<()> {
        write!(out, "\n{:width$}", "", width = 2 * self.levels)
    }
}

impl Formatter for Jackson {
    fn begin_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.levels += 1;
        self.empty = true;
        out.write_all(b"{")
    }

    fn end_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.levels -= 1;
        if self.empty {
            self.empty = false;
            return out.write_all(b" }");
        }
        self.new_line(out)?;
        out.write_all(b"}")
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.empty = false;
        if !first {
            out.write_all(b",")?;
        }
        self.new_line(out)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(b" : ")
    }

    fn begin_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.empty = true;
        out.write_all(b"[ ")
    }

    fn end_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        // Of an empty list nothing stands between the two.
        if std::mem::take(&mut self.empty) { out.write_all(b"]") } else { out.write_all(b" ]") }
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.empty = false;
        if first { Ok(()) } else { out.write_all(b", ") }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn objects_take_lines_and_lists_do_not() {
        let value = json!({"a": [], "b": [1, 2], "c": [{"d": null}, {}], "e": {"f": 3.0}, "g": [[]]});
        let expected = "{\n  \"a\" : [ ],\n  \"b\" : [ 1, 2 ],\n  \"c\" : [ {\n    \"d\" : null\n  }, { } ],\n  \"e\" : {\n    \"f\" : 3.0\n  },\n  \"g\" : [ [ ] ]\n}";
        assert_eq!(text(value.as_object().expect("an object")), expected);
    }
}
