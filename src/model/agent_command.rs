//! What agents and people asked of campaigns, kept for the record (contract 3.2 `AgentCommand`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Budget, CampaignId, RequestId, Resource, TimeMs};

/// What was asked for. Stored: variants are only appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AgentCommandKind {
    /// A campaign was to be made.
    CreateDesignCampaign,
    /// Iterations of one were to be begun.
    AdvanceCampaign,
    /// Simulations of structures were to be made.
    RequestSimulations,
    /// Experiments on structures were to be made.
    RequestExperiments,
    /// The kill switch of a campaign was to be pulled.
    StopCampaign,
}

impl AgentCommandKind {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CreateDesignCampaign => "create_design_campaign",
            Self::AdvanceCampaign => "advance_campaign",
            Self::RequestSimulations => "request_simulations",
            Self::RequestExperiments => "request_experiments",
            Self::StopCampaign => "stop_campaign",
        }
    }
}

/// What came of it. Stored: variants are only appended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum AgentResult {
    /// A campaign is there.
    Campaign {
        /// Which.
        campaign_id: CampaignId,
    },
    /// Iterations will be begun.
    Iterations {
        /// Of which campaign.
        campaign_id: CampaignId,
        /// How many.
        count: u32,
    },
    /// Jobs were made; their ids are derived from the request.
    Jobs {
        /// How many.
        count: u32,
    },
    /// It was refused.
    Refused {
        /// The stable code.
        code: String,
        /// For people.
        text: String,
    },
    /// The kill switch is pulled.
    Stopped {
        /// Of which campaign.
        campaign_id: CampaignId,
    },
}

/// One command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentCommand {
    /// Counts them, from 1.
    pub number: u64,
    /// The request that brought it: its own id and those of its jobs are derived from it.
    pub request_id: RequestId,
    /// Who asked.
    pub agent_id: String,
    /// What for.
    pub kind: AgentCommandKind,
    /// As JSON object text.
    pub payload: String,
    /// What came of it.
    pub result: AgentResult,
    /// What its jobs may use together, and have used.
    pub budgets: BTreeMap<Resource, Budget>,
    /// When it was asked for, and done: one log entry holds both.
    pub at_ms: TimeMs,
}
