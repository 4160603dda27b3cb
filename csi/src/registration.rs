//! The plugin makes itself known to the kubelet.
//!
//! ```text
//!   DIR/csi.understudy.dev@reg.sock   the kubelet sees the file, calls GetInfo, then the CSI socket,
//!                                     then NotifyRegistrationStatus
//!   the file is gone (the kubelet has cleaned up) ─► it is made again, and the kubelet asks again
//! ```

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tonic::{Request, Response, Status};
use tracing::{error, info};

use crate::DRIVER_NAME;
use crate::proto::registration::registration_server::{
    Registration as Service, RegistrationServer,
};
use crate::proto::registration::{
    InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse,
};
use crate::server::Socket;

/// How often is looked whether the socket's file is still there.
const EVERY: Duration = Duration::from_secs(2);

/// The version of CSI that the kubelet asks for: any 1.x can talk to any other.
const CSI_VERSION: &str = "1.0.0";

/// What the kubelet is told.
#[derive(Clone, Debug)]
pub struct Registration {
    /// The CSI socket, as the kubelet sees it.
    endpoint: String,
}

#[tonic::async_trait]
impl Service for Registration {
    async fn get_info(&self, _: Request<InfoRequest>) -> Result<Response<PluginInfo>, Status> {
        Ok(Response::new(PluginInfo {
            r#type: "CSIPlugin".to_owned(),
            name: DRIVER_NAME.to_owned(),
            endpoint: self.endpoint.clone(),
            supported_versions: vec![CSI_VERSION.to_owned()],
        }))
    }

    async fn notify_registration_status(
        &self,
        request: Request<RegistrationStatus>,
    ) -> Result<Response<RegistrationStatusResponse>, Status> {
        let status = request.into_inner();
        if status.plugin_registered {
            info!(endpoint = self.endpoint, "registered with the kubelet");
        } else {
            // The kubelet tries again by itself.
            error!(
                endpoint = self.endpoint,
                "the kubelet has not registered the driver: {}", status.error
            );
        }
        Ok(Response::new(RegistrationStatusResponse {}))
    }
}

/// Where the registration socket is in the kubelet's folder.
///
/// Its name has an `@` for a reason. The kubelet sends the path of the socket as the request's
/// authority, each slash as `%2F`. HTTP allows that before an `@` only, and a server that looks (ours
/// does) breaks off every call otherwise.
pub fn socket(folder: &Path) -> PathBuf {
    folder.join(format!("{DRIVER_NAME}@reg.sock"))
}

/// Which file is at a path.
fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Serves the registration until `shutdown`, whatever becomes of the socket's file.
pub async fn serve(
    folder: &Path,
    endpoint: &Path,
    shutdown: impl Future<Output = ()> + Send,
) -> std::io::Result<()> {
    let path = socket(folder);
    let endpoint = endpoint.display().to_string();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let bound = Socket::bind(&path)?;
        let made = identity(&path);
        let routes = tonic::service::Routes::new(RegistrationServer::new(Registration {
            endpoint: endpoint.clone(),
        }));
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let mut serving = tokio::spawn(bound.serve(routes, async { drop(stopped.await) }));
        let vanished = async {
            while identity(&path) == made {
                tokio::time::sleep(EVERY).await;
            }
        };
        let ended = tokio::select! {
            () = &mut shutdown => true,
            () = vanished => false,
            _ = &mut serving => false,
        };
        if ended {
            // It may have ended by itself just now.
            let _ended = stop.send(());
            let _ended = serving.await;
            return Ok(());
        }
        info!("the registration socket {} is gone: made again", path.display());
        serving.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::registration::registration_client::RegistrationClient;
    use crate::server::connect;

    #[test]
    fn the_path_as_the_kubelet_sends_it_is_an_authority() {
        let path = socket(Path::new("/var/lib/kubelet/plugins_registry"));
        let sent = path.display().to_string().replace('/', "%2F");
        let parse =
            |authority: &str| format!("http://{authority}/x").parse::<tonic::transport::Uri>();
        parse(&sent).unwrap();
        assert!(parse(&sent.replace('@', "-")).is_err(), "then the name could be any");
    }

    #[tokio::test]
    async fn the_kubelet_learns_where_the_driver_is_again_after_it_has_cleaned_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = socket(folder.path());
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let dir = folder.path().to_owned();
        let serving = tokio::spawn(async move {
            let endpoint = Path::new("/var/lib/kubelet/plugins/csi.understudy.dev/csi.sock");
            serve(&dir, endpoint, async { drop(stopped.await) }).await
        });
        for round in 0..2 {
            let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
            let info = loop {
                let mut client = RegistrationClient::new(connect(&path));
                match client.get_info(InfoRequest {}).await {
                    Ok(answer) => break answer.into_inner(),
                    Err(e) => assert!(tokio::time::Instant::now() < deadline, "{round}: {e}"),
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            };
            assert_eq!((info.r#type.as_str(), info.name.as_str()), ("CSIPlugin", DRIVER_NAME));
            assert!(info.endpoint.ends_with("/csi.sock"));
            std::fs::remove_file(&path).unwrap();
        }
        stop.send(()).unwrap();
        serving.await.unwrap().unwrap();
    }
}
