//! The operator: carries out what the driver ordered, through whichever member comes first.

use std::time::Duration;

use quorate::cluster::Cluster;

use crate::stage::{Order, Stage};

pub(crate) async fn run(stage: Stage, place: usize, member: Cluster) {
    loop {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let leads = member.leadership().borrow().is_some();
        let order = {
            let mut orders = stage.orders.lock();
            let mine = |order: &Order| match order {
                Order::HandOver => leads,
                Order::Snapshot { place: at } => *at == place,
                Order::Demote { .. } | Order::Promote { .. } | Order::Remove { .. } => {
                    member.member_id() != 0
                }
            };
            let at = orders.iter().position(mine);
            at.and_then(|at| orders.remove(at))
        };
        if let Some(order) = order {
            carry_out(&stage, &member, order).await;
        }
    }
}

async fn carry_out(stage: &Stage, member: &Cluster, order: Order) {
    let (covered, done) = match order {
        Order::HandOver => ("transfers", member.transfer_leader(None).await.map(drop)),
        Order::Snapshot { .. } => ("snapshots_ordered", member.snapshot().await),
        Order::Demote { member_id } => ("demoted", member.demote(member_id).await.map(drop)),
        Order::Promote { member_id } => ("promoted", member.promote(member_id).await.map(drop)),
        Order::Remove { member_id } => ("removed", member.remove(member_id).await.map(drop)),
    };
    let told = done.as_ref().map_err(|error| error.code.as_str());
    stage.book().trace(&format!("{order:?} through {}: {told:?}", member.member_id()));
    if done.is_ok() {
        stage.book().cover(covered);
    }
}
