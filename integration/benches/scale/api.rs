//! Pages of ListWorkspaces: an admin who reads on through all, and users who see their own.

use windlass_integration::bench::{Plane, Report, rows, timed};
use windlass_proto::v1::ListWorkspacesRequest;

/// Pages that are read on.
const PAGES: usize = 50;

/// Runs it.
pub async fn measure(plane: &Plane, report: &mut Report, size: usize, runs: usize) {
    let mut admin = plane.workspaces();
    let request = |order: &str, token: String| ListWorkspacesRequest {
        page_size: 100,
        page_token: token,
        order_by: order.to_owned(),
        ..ListWorkspacesRequest::default()
    };
    // Connected, and known by the token, before anything counts.
    admin
        .list_workspaces(request("", String::new()))
        .await
        .unwrap();
    for order in ["create_time", "name desc"] {
        let mut token = String::new();
        for page in 0..PAGES {
            let (took, answer) = timed(admin.list_workspaces(request(order, token))).await;
            let answer = answer.unwrap().into_inner();
            let which = if page == 0 {
                "first page"
            } else {
                "page further on"
            };
            let what = format!("api: ListWorkspaces by {order}, {which} of 100");
            report.add(size, what, "ms", took);
            token = answer.next_page_token;
            if token.is_empty() {
                break;
            }
        }
    }
    for _ in 0..runs {
        let filter = ListWorkspacesRequest {
            filter: "phase = STANDBY".to_owned(),
            ..request("", String::new())
        };
        let (took, answer) = timed(admin.list_workspaces(filter)).await;
        answer.unwrap();
        let what = "api: ListWorkspaces, a filter that nothing meets";
        report.add(size, what, "ms", took);
    }
    let mut user = plane.workspaces_as(&rows::token(0));
    user.list_workspaces(request("", String::new()))
        .await
        .unwrap();
    for _ in 0..runs {
        let (took, answer) = timed(user.list_workspaces(request("", String::new()))).await;
        answer.unwrap();
        report.add(size, "api: ListWorkspaces of one user", "ms", took);
    }
}
