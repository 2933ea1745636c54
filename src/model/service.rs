//! The services outside that workflows are made of (contract 5.4, 5.5; 6, row 11).

/// A service, by the name that a task of a workflow has as its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    /// Makes images.
    ImageGeneration,
    /// Makes videos.
    VideoGeneration,
    /// Predicts prices.
    CryptoPrediction,
    /// Judges transactions.
    FraudDetection,
    /// Listed, and called by nobody.
    Compression,
    /// Listed, and called by nobody.
    Marketing,
}

impl Service {
    /// All of them, in the order they are listed in.
    pub const ALL: [Self; 6] = [
        Self::ImageGeneration,
        Self::VideoGeneration,
        Self::CryptoPrediction,
        Self::FraudDetection,
        Self::Compression,
        Self::Marketing,
    ];

    /// Its word on the wire and in configurations.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ImageGeneration => "image_generation",
            Self::VideoGeneration => "video_generation",
            Self::CryptoPrediction => "crypto_prediction",
            Self::FraudDetection => "fraud_detection",
            Self::Compression => "compression",
            Self::Marketing => "marketing",
        }
    }

    /// Where it is when nothing is said.
    #[must_use]
    pub const fn default_url(self) -> &'static str {
        match self {
            Self::ImageGeneration => "http://image-generation-service:5000",
            Self::VideoGeneration => "http://video-generation-service:5001",
            Self::CryptoPrediction => "http://crypto-prediction-service:5002",
            Self::FraudDetection => "http://fraud-detection-service:5004",
            Self::Compression => "http://compression-service:5006",
            Self::Marketing => "http://marketing-intelligence-service:5007",
        }
    }

    /// What a task of a workflow posts to, and how many seconds it may take; `None` for services
    /// that tasks are not for.
    #[must_use]
    pub fn door(self) -> Option<(&'static str, u64)> {
        match self {
            Self::ImageGeneration => Some(("/generate", 300)),
            Self::VideoGeneration => Some(("/generate", 600)),
            Self::CryptoPrediction => Some(("/predict", 60)),
            Self::FraudDetection => Some(("/analyze", 30)),
            Self::Compression | Self::Marketing => None,
        }
    }

    /// The service that tasks of a type are for.
    #[must_use]
    pub fn of_type(task_type: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.as_str() == task_type && one.door().is_some())
    }
}

/// Where the services are, as one member was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Services {
    urls: [String; Service::ALL.len()],
}

impl Default for Services {
    fn default() -> Self {
        Self { urls: Service::ALL.map(|service| service.default_url().to_owned()) }
    }
}

impl Services {
    /// The base URL of a service, without a slash at its end.
    #[must_use]
    pub fn url(&self, service: Service) -> &str {
        &self.urls[service as usize]
    }

    /// Moves a service.
    pub fn set(&mut self, service: Service, url: &str) {
        url.trim_end_matches('/').clone_into(&mut self.urls[service as usize]);
    }

    /// Names and base URLs, in the order of [`Service::ALL`].
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        Service::ALL.into_iter().map(|service| (service.as_str(), self.url(service)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contract_5_4_which_types_are_for_which_service() {
        for (task_type, door) in [
            ("image_generation", Some(("/generate", 300))),
            ("video_generation", Some(("/generate", 600))),
            ("crypto_prediction", Some(("/predict", 60))),
            ("fraud_detection", Some(("/analyze", 30))),
            ("compression", None),
            ("marketing", None),
            ("Image_Generation", None),
            ("", None),
        ] {
            let found = Service::of_type(task_type).and_then(Service::door);
            assert_eq!(found, door, "{task_type}");
        }
    }

    #[test]
    fn services_move_one_by_one() {
        let mut services = Services::default();
        services.set(Service::Compression, "http://a:1/base/");
        assert_eq!(services.url(Service::Compression), "http://a:1/base");
        let names: Vec<_> = services.iter().filter(|(_, url)| url.contains("-service:")).collect();
        assert_eq!(names.len(), 5);
    }
}
