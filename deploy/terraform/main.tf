# A Cloud Run service with sidentity beside the app. Its own service account has only the permissions of `calls` and
# `roles`. Only `invokers` may call it.

resource "google_service_account" "this" {
  project      = var.project
  account_id   = var.name
  display_name = "Cloud Run service ${var.name}"
}

# A grant for each service: roles/run.invoker on the project would permit calls to all of its services.
resource "google_cloud_run_v2_service_iam_member" "calls" {
  for_each = var.calls

  project  = coalesce(each.value.project, var.project)
  location = coalesce(each.value.location, var.region)
  name     = each.value.service
  role     = "roles/run.invoker"
  member   = google_service_account.this.member
}

resource "google_project_iam_member" "roles" {
  for_each = var.roles

  project = var.project
  role    = each.value
  member  = google_service_account.this.member
}

resource "google_cloud_run_v2_service" "this" {
  project             = var.project
  location            = var.region
  name                = var.name
  ingress             = var.ingress
  deletion_protection = var.deletion_protection

  template {
    service_account = google_service_account.this.email

    containers {
      name  = "app"
      image = var.app_image
      # The app starts after the sidecar's startup probe passes, so that its first call finds a listener.
      depends_on = ["sidentity"]

      ports {
        container_port = var.app_port
      }

      dynamic "env" {
        for_each = var.app_env
        content {
          name  = env.key
          value = env.value
        }
      }

      resources {
        limits = var.app_limits
      }
    }

    containers {
      name  = "sidentity"
      image = var.sidentity_image
      args  = concat([for port, url in var.routes : "--route=${port}=${url}"], var.sidentity_args)

      startup_probe {
        period_seconds    = 1
        failure_threshold = 30
        http_get {
          path = "/startup"
          port = 9090
        }
      }

      # Each probe gives the sidecar CPU on an idle instance, in which it refreshes stale tokens.
      liveness_probe {
        period_seconds = 60
        http_get {
          path = "/liveness"
          port = 9090
        }
      }

      resources {
        limits = {
          cpu    = "500m"
          memory = "128Mi"
        }
      }
    }
  }

  # The permission must exist before the first call.
  depends_on = [
    google_cloud_run_v2_service_iam_member.calls,
    google_project_iam_member.roles,
  ]
}

resource "google_cloud_run_v2_service_iam_member" "invokers" {
  for_each = var.invokers

  project  = google_cloud_run_v2_service.this.project
  location = google_cloud_run_v2_service.this.location
  name     = google_cloud_run_v2_service.this.name
  role     = "roles/run.invoker"
  member   = each.value
}
