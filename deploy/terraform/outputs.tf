output "uri" {
  description = "The service's URL."
  value       = google_cloud_run_v2_service.this.uri
}

output "service_account" {
  description = "The account's email, for bindings on buckets, topics and other resources of the app."
  value       = google_service_account.this.email
}
