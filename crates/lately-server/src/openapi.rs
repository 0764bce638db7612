//! The description of the data door for programs.

use utoipa::OpenApi;

use crate::http;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Lately",
        description = "Ranks a feed by what each person did a moment ago. Every error is \
                       {\"error\":{\"code\",\"message\"}}; 429 and 503 come with Retry-After."
    ),
    paths(
        http::events::post_events,
        http::items::put_items,
        http::rank::post_rank,
        http::feed::get_feed,
        http::users::get_user,
        http::users::delete_user,
        http::models::get_models,
        http::oip::server,
        http::oip::live,
        http::oip::ready,
        http::oip::model,
        http::oip::model_ready,
        http::oip::infer,
        http::health::healthz,
        http::health::readyz,
    )
)]
struct Description;

/// The OpenAPI document.
///
/// # Errors
/// Where it cannot be written as JSON.
pub fn openapi_json() -> Result<String, serde_json::Error> {
    Description::openapi().to_pretty_json()
}
