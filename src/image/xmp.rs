//! XMP with a receipt: the element `denoised:receipt`, whose text is the receipt's JSON (ISO 16684-1).

const START: &str = "<denoised:receipt>";
const END: &str = "</denoised:receipt>";

/// An XMP packet with this receipt.
pub(super) fn with_receipt(receipt: &str) -> String {
    let receipt = html_escape::encode_text(receipt);
    format!(
        "<?xpacket begin=\"\u{feff}\" id=\"W5M0MpCehiHzreSzNTczkc9d\"?>\
         <x:xmpmeta xmlns:x=\"adobe:ns:meta/\">\
         <rdf:RDF xmlns:rdf=\"http://www.w3.org/1999/02/22-rdf-syntax-ns#\">\
         <rdf:Description rdf:about=\"\" xmlns:denoised=\"urn:denoised:\">\
         {START}{receipt}{END}\
         </rdf:Description></rdf:RDF></x:xmpmeta>\
         <?xpacket end=\"r\"?>"
    )
}

/// The receipt in an XMP packet.
pub(super) fn receipt(packet: &[u8]) -> Option<String> {
    let packet = std::str::from_utf8(packet).ok()?;
    let (_, rest) = packet.split_once(START)?;
    let (receipt, _) = rest.split_once(END)?;
    Some(html_escape::decode_html_entities(receipt).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_is_the_same_after_it_is_read() {
        for text in ["{}", r#"{"prompt": "a < b &amp; c > \"d\"</denoised:receipt>"}"#, ""] {
            let packet = with_receipt(text);
            assert_eq!(receipt(packet.as_bytes()).as_deref(), Some(text));
            assert!(packet.matches(END).count() == 1, "{packet}");
        }
    }

    #[test]
    fn a_packet_without_a_whole_receipt_has_none() {
        let packet = with_receipt("{}");
        let end = packet.find(END).unwrap() + END.len();
        assert!((0..end).all(|length| receipt(&packet.as_bytes()[..length]).is_none()));
        assert_eq!(receipt(b"<denoised:receipt>\xff</denoised:receipt>"), None);
    }
}
