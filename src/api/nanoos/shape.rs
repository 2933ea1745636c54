//! Errors as family N's clients look for them (contract 1.3): `detail` is a text, `error` an object.

use axum::body::{Body, to_bytes};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use serde_json::{Map, Value, json};

/// The longest problem document.
const PROBLEM_BYTES_MAX: usize = 64 * 1024;

/// Turns a problem document into the family's form; lets everything else pass.
pub(in crate::api) async fn reshaped(response: Response) -> Response {
    let problem = HeaderValue::from_static("application/problem+json");
    if response.headers().get(header::CONTENT_TYPE) != Some(&problem) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let bytes = to_bytes(body, PROBLEM_BYTES_MAX).await.unwrap_or_default();
    let Ok(Value::Object(mut document)) = serde_json::from_slice(&bytes) else {
        return Response::from_parts(parts, Body::from(bytes));
    };
    parts.status = reshape(parts.status, &mut document);
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, Body::from(Value::Object(document).to_string()))
}

/// The field that a text begins with: `name must ...`, `name is required`.
fn leading_field(said: &str) -> Option<&str> {
    let (field, rest) = said.split_once(' ')?;
    let verb = rest.split(' ').next()?;
    let is_name = |letter: char| letter.is_ascii_lowercase() || letter == '_' || letter == '.';
    (["must", "is", "holds"].contains(&verb) && field.chars().all(is_name)).then_some(field)
}

fn reshape(status: StatusCode, document: &mut Map<String, Value>) -> StatusCode {
    let text = |document: &Map<String, Value>, key: &str| {
        document.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let (said, detail, code) =
        (text(document, "error"), text(document, "detail"), text(document, "code"));
    let mut details = json!({"code": code, "reason": detail});
    let invalid = ["INVALID_FIELD", "INVALID_CAMPAIGN", "INVALID_ACCOUNT", "INVALID_QUERY"];
    let (status, message) = if invalid.contains(&code.as_str()) {
        let part = if code == "INVALID_QUERY" { "query" } else { "body" };
        let named = document.remove("field");
        let named = named.as_ref().and_then(Value::as_str).or_else(|| leading_field(&said));
        let field = named.map_or_else(|| part.to_owned(), |field| format!("{part}.{field}"));
        details["fields"] = json!([{"field": field, "message": said, "type": "value_error"}]);
        (StatusCode::UNPROCESSABLE_ENTITY, "Validation failed".to_owned())
    } else {
        (status, said.clone())
    };
    let kind = match status.as_u16() {
        401 => "AuthenticationError",
        403 => "AuthorizationError",
        404 => "NotFoundError",
        409 => "ConflictError",
        422 => "ValidationError",
        429 => "RateLimitError",
        500.. => "InternalServerError",
        _ => "HTTPException",
    };
    document
        .insert("error".to_owned(), json!({"message": message, "type": kind, "details": details}));
    document.insert("detail".to_owned(), said.into());
    document.insert("status".to_owned(), status.as_u16().into());
    document.insert("title".to_owned(), status.canonical_reason().unwrap_or_default().into());
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contract_1_3_errors_of_family_n_have_both_forms() {
        let cases = [
            (404, "X", 404, "NotFoundError", "it is so"),
            (400, "X", 400, "HTTPException", "it is so"),
            (400, "INVALID_FIELD", 422, "ValidationError", "Validation failed"),
            (503, "X", 503, "InternalServerError", "it is so"),
        ];
        for (status, code, wanted, kind, message) in cases {
            let mut document = Map::new();
            document.insert("error".to_owned(), "it is so".into());
            document.insert("code".to_owned(), code.into());
            let given = reshape(StatusCode::from_u16(status).unwrap(), &mut document);
            assert_eq!(given.as_u16(), wanted);
            assert_eq!(document["error"]["type"], kind);
            assert_eq!(document["error"]["message"], message);
            assert_eq!(document["detail"], "it is so");
            assert_eq!(document["title"], given.canonical_reason().unwrap());
        }
    }
}
