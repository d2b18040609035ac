//! Reads prices from text lines `symbol,date,price`, and says exactly what is wrong with a line that isn't one.
//!
//! ```text
//! symbol,date,price
//! AAPL,Jan 1 2000,25.94
//! "IBM",2000-01-01,100.52
//! ```
//!
//! Dates are `Jan 1 2000`, `2000-01-31` or `2000-01-31 09:30`. The heading may be left out, lines may come in any
//! order, blank ones are skipped, and a field may be in double quotes. Windows line ends and a byte order mark are
//! fine.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::str;

use crate::store::{Point, Series, Time};

const LINE: &str = "a line is `symbol,date,price`, for example `AAPL,2000-01-31,25.94`";

/// A file that can't be read as prices. Each says where, what, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CsvError {
    #[error("can't read {file}; is the name right, and may you read it?")]
    Unreadable { file: String, source: std::io::Error },
    #[error("{file} has no prices; {LINE}")]
    Empty { file: String },
    #[error("{file}, line {line}: {problem}; {remedy}")]
    Line { file: String, line: usize, problem: String, remedy: String },
}

/// Reads the file `path`. The symbols come in the order in which the file first names them.
pub(crate) fn read_file(path: &Path) -> Result<Vec<(String, Series)>, CsvError> {
    let file = path.display().to_string();
    match fs::read(path) {
        Ok(bytes) => parse(&file, &bytes),
        Err(source) => Err(CsvError::Unreadable { file, source }),
    }
}

/// Reads `bytes`; `file` is the name that errors give.
pub(crate) fn parse(file: &str, bytes: &[u8]) -> Result<Vec<(String, Series)>, CsvError> {
    let not_text = |good: usize| {
        let line = bytes[..good].iter().filter(|&&byte| byte == b'\n').count() + 1;
        let remedy = "save the file as `CSV UTF-8`; a spreadsheet or an archive must be exported first";
        BadLine::new("this is not text in UTF-8", remedy).at(file, line)
    };
    let text = str::from_utf8(bytes).map_err(|error| not_text(error.valid_up_to()))?;
    if let Some(zero) = text.find('\0') {
        return Err(not_text(zero)); // UTF-16 or binary, although every byte could be UTF-8
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);

    let mut symbols = Vec::new();
    // By symbol, then by time, with the line that each came from.
    let mut prices: BTreeMap<String, BTreeMap<Time, (usize, f64)>> = BTreeMap::new();
    let mut heading_possible = true;
    for (line, content) in (1..).zip(text.lines()) {
        if content.trim().is_empty() {
            continue;
        }
        let first = std::mem::take(&mut heading_possible);
        let fields = split(content).map_err(|bad| bad.at(file, line))?;
        if first && is_heading(&fields) {
            continue;
        }
        let (symbol, time, price) = row(&fields).map_err(|bad| bad.at(file, line))?;
        let series = prices.entry(symbol.clone()).or_insert_with(|| {
            symbols.push(symbol.clone());
            BTreeMap::new()
        });
        if let Some((earlier, _)) = series.insert(time, (line, price)) {
            let problem = format!("a second price of {symbol} at {time}, after the one in line {earlier}");
            return Err(BadLine::new(problem, "keep one of the two").at(file, line));
        }
    }
    if symbols.is_empty() {
        return Err(CsvError::Empty { file: file.to_owned() });
    }
    let series = |symbol: String| {
        let rows = prices.remove(&symbol).unwrap_or_default();
        let points = rows.into_iter().map(|(time, (_, price))| Point { time, price, volume: None });
        (symbol, Series::new(points.collect()))
    };
    Ok(symbols.into_iter().map(series).collect())
}

struct BadLine {
    problem: String,
    remedy: String,
}

impl BadLine {
    fn new(problem: impl Into<String>, remedy: impl Into<String>) -> BadLine {
        BadLine { problem: problem.into(), remedy: remedy.into() }
    }

    fn at(self, file: &str, line: usize) -> CsvError {
        let BadLine { problem, remedy } = self;
        CsvError::Line { file: file.to_owned(), line, problem, remedy }
    }
}

/// The fields of a line, without quotes and outer spaces. Within quotes a comma is a comma and `""` is one quote.
fn split(line: &str) -> Result<Vec<String>, BadLine> {
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        let trimmed = rest.trim_start();
        let (field, after) = match trimmed.strip_prefix('"') {
            Some(quoted) => unquote(quoted)?,
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                (rest[..end].to_owned(), &rest[end..])
            }
        };
        fields.push(field.trim().to_owned());
        match after.trim_start().strip_prefix(',') {
            Some(next) => rest = next,
            None if after.trim().is_empty() => return Ok(fields),
            None => {
                let problem = format!("{} follows a closing quote", shown(after.trim()));
                return Err(BadLine::new(problem, "put a comma there, or write a quote within quotes as \"\""));
            }
        }
    }
}

/// The text up to the closing quote, and what follows that.
fn unquote(text: &str) -> Result<(String, &str), BadLine> {
    let mut field = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('"') {
        field.push_str(before);
        match after.strip_prefix('"') {
            Some(next) => {
                field.push('"');
                rest = next;
            }
            None => return Ok((field, after)),
        }
    }
    Err(BadLine::new("a quote is opened and not closed", "close it on the same line, or remove it"))
}

fn is_heading(fields: &[String]) -> bool {
    let names = ["symbol", "date", "price"];
    fields.len() == names.len() && fields.iter().zip(names).all(|(field, name)| field.eq_ignore_ascii_case(name))
}

fn row(fields: &[String]) -> Result<(String, Time, f64), BadLine> {
    let [symbol, date, price] = fields else {
        let columns = match fields.len() {
            1 => "1 column".to_owned(),
            n => format!("{n} columns"),
        };
        return Err(BadLine::new(format!("{columns} instead of 3"), LINE));
    };
    if symbol.is_empty() || symbol.chars().any(char::is_control) {
        let problem = format!("{} is not a symbol", shown(symbol));
        return Err(BadLine::new(problem, "write a name such as AAPL in the first column"));
    }
    let time = parse_time(date).ok_or_else(|| {
        let problem = format!("{} is not a date", shown(date));
        BadLine::new(problem, "write it like 2000-01-31 or Jan 31 2000")
    })?;
    match price.parse::<f64>() {
        Ok(price) if price.is_finite() => Ok((symbol.clone(), time, price)),
        _ => {
            let problem = format!("{} is not a price", shown(price));
            Err(BadLine::new(
                problem,
                "write a plain number such as 1025.94, without a currency sign or thousands commas",
            ))
        }
    }
}

/// `2000-01-31`, `2000-01-31 09:30`, `Jan 31 2000` or `Jan 31, 2000`.
fn parse_time(text: &str) -> Option<Time> {
    if let Ok(time) = text.parse() {
        return Some(time);
    }
    let mut words = text.split_whitespace();
    let (month, day, year) = (words.next()?, words.next()?, words.next()?);
    if words.next().is_some() || year.len() != 4 {
        return None;
    }
    let names = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
    let month = (1..).zip(names).find(|(_, name)| month.eq_ignore_ascii_case(name))?.0;
    let day = day.strip_suffix(',').unwrap_or(day);
    let number = |text: &str| match text.bytes().all(|byte| byte.is_ascii_digit()) {
        true => text.parse::<u32>().ok(),
        false => None,
    };
    Time::from_date(number(year)?.into(), month, number(day)?)
}

/// A field as an error shows it: control characters made visible, and never a whole page.
fn shown(field: &str) -> String {
    const MOST: usize = 40;
    let mut text: String = field.chars().take(MOST).flat_map(char::escape_debug).collect();
    if field.chars().nth(MOST).is_some() {
        text.push_str("...");
    }
    format!("`{text}`")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(text: &str) -> Vec<(String, Vec<(String, f64)>)> {
        let parsed = parse("prices.csv", text.as_bytes()).unwrap_or_else(|error| panic!("{error}"));
        let rows =
            |series: &Series| series.points().iter().map(|point| (point.time.to_string(), point.price)).collect();
        parsed.iter().map(|(symbol, series)| (symbol.clone(), rows(series))).collect()
    }

    fn error(bytes: impl AsRef<[u8]>) -> String {
        match parse("prices.csv", bytes.as_ref()) {
            Ok(parsed) => panic!("no error, but {parsed:?}"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn both_kinds_of_dates_are_read_and_sorted() {
        let text = "symbol,date,price\nMSFT,Feb 1 2000,36.35\nMSFT,2000-01-01,39.81\nIBM,mar 31 2010,128.25\n";
        let msft = vec![("2000-01-01".to_owned(), 39.81), ("2000-02-01".to_owned(), 36.35)];
        let ibm = vec![("2010-03-31".to_owned(), 128.25)];
        assert_eq!(series(text), [("MSFT".to_owned(), msft), ("IBM".to_owned(), ibm)]);
    }

    #[test]
    fn quotes_windows_line_ends_byte_order_mark_and_blank_lines_are_fine() {
        let text = concat!(
            "\u{feff}Symbol,Date,Price\r\n\r\n",
            " \"BRK \"\"A\"\"\" , \"Jan 31, 2000\" ,\"-1.5e3\"\r\n",
            "   \r\nX,2000-02-29 09:30,.5"
        );
        let quoted = vec![("2000-01-31".to_owned(), -1500.0)];
        let plain = vec![("2000-02-29 09:30".to_owned(), 0.5)];
        assert_eq!(series(text), [("BRK \"A\"".to_owned(), quoted), ("X".to_owned(), plain)]);
    }

    #[test]
    fn a_heading_is_optional() {
        assert_eq!(series("A,2000-01-01,1").len(), 1);
    }

    #[test]
    fn errors_name_file_line_problem_and_remedy() {
        let good = "symbol,date,price\n\nA,2000-01-01,1\n";
        for (line, problem, remedy) in [
            ("A,2000-01-02", "2 columns instead of 3", "`symbol,date,price`"),
            ("A;2000-01-02;1", "1 column instead of 3", "`symbol,date,price`"),
            ("A,2000-01-02,1,234.5", "4 columns instead of 3", "`symbol,date,price`"),
            (",2000-01-02,1", "`` is not a symbol", "AAPL"),
            ("A\x07,2000-01-02,1", "`A\\u{7}` is not a symbol", "AAPL"),
            ("A,2001-02-29,1", "`2001-02-29` is not a date", "Jan 31 2000"),
            ("A,Foo 1 2000,1", "`Foo 1 2000` is not a date", "Jan 31 2000"),
            ("A,Jan 1 00,1", "`Jan 1 00` is not a date", "Jan 31 2000"),
            ("A,1/2/2000,1", "`1/2/2000` is not a date", "Jan 31 2000"),
            ("A,2000-01-02,12x", "`12x` is not a price", "1025.94"),
            ("A,2000-01-02,", "`` is not a price", "1025.94"),
            ("A,2000-01-02,NaN", "`NaN` is not a price", "1025.94"),
            ("A,2000-01-02,1e999", "`1e999` is not a price", "1025.94"),
            ("A,2000-01-02,\"1,234\"", "`1,234` is not a price", "thousands commas"),
            ("\"A,2000-01-02,1", "a quote is opened and not closed", "close it"),
            ("\"A\"B,2000-01-02,1", "`B,2000-01-02,1` follows a closing quote", "comma"),
            ("A,2000-01-01,2", "a second price of A at 2000-01-01, after the one in line 3", "keep one"),
            ("symbol,date,price", "`date` is not a date", "Jan 31 2000"),
        ] {
            let message = error(format!("{good}{line}\n"));
            assert!(message.starts_with(&format!("prices.csv, line 4: {problem}; ")), "{message}");
            assert!(message.contains(remedy), "{message}");
        }
    }

    #[test]
    fn a_file_without_prices_is_an_error() {
        for text in ["", "\n \r\n", "symbol,date,price\n"] {
            assert!(error(text).starts_with("prices.csv has no prices; "));
        }
    }

    #[test]
    fn binary_data_is_an_error_with_the_line_where_it_starts() {
        for bytes in [b"A,2000-01-01,1\n\xff\xfe", b"A,2000-01-01,1\nB\0"] {
            let message = error(bytes);
            assert!(message.starts_with("prices.csv, line 2: this is not text in UTF-8; "), "{message}");
        }
    }

    #[test]
    fn a_missing_file_is_an_error_with_its_reason() {
        let missing = Path::new("/no/such/folder/prices.csv");
        assert!(matches!(read_file(missing), Err(CsvError::Unreadable { .. })));
    }

    #[test]
    fn an_error_shows_a_long_field_only_in_part() {
        let message = error(format!("A,{},1\n", "9".repeat(10_000)));
        assert!(message.len() < 200, "{message}");
    }
}
