variable "project" {
  description = "The project's ID."
  type        = string
}

variable "region" {
  description = "Where the service runs, such as europe-west1."
  type        = string
}

variable "name" {
  description = "The name of the service and of its account."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.name))
    error_message = "The name of an account has 6 to 30 letters, digits and hyphens, begins with a letter and does not end with a hyphen."
  }
}

variable "app_image" {
  description = "The app's image."
  type        = string
}

variable "sidentity_image" {
  description = "The image of deploy/Dockerfile."
  type        = string
}

variable "app_port" {
  description = "Where the app listens."
  type        = number
  default     = 8080
}

variable "app_env" {
  description = "The app's environment, such as { BILLING_URL = \"http://localhost:8081\" }, or HTTP_PROXY."
  type        = map(string)
  default     = {}
}

variable "app_limits" {
  description = "The app's limits of CPU and memory."
  type        = map(string)
  default = {
    cpu    = "1"
    memory = "512Mi"
  }
}

variable "routes" {
  description = "Local ports and the URLs that they stand for: { 8081 = \"https://billing-424242.europe-west1.run.app\" }."
  type        = map(string)
  default     = {}
}

variable "sidentity_args" {
  description = "Further arguments of the sidecar, such as --unmatched=deny."
  type        = list(string)
  default     = []
}

variable "calls" {
  description = "The Cloud Run services that this one may call. Region and project default to those of this service."
  type = map(object({
    service  = string
    location = optional(string)
    project  = optional(string)
  }))
  default = {}
}

variable "roles" {
  description = "Roles on the project, for Google APIs, such as roles/storage.objectViewer. Prefer narrower ones, such as on a bucket."
  type        = set(string)
  default     = []

  validation {
    condition     = length(setintersection(var.roles, ["roles/owner", "roles/editor", "roles/viewer", "roles/run.invoker", "roles/run.admin"])) == 0
    error_message = "These roles are too wide: name what the app does; services that it calls belong into calls."
  }
}

variable "invokers" {
  description = "The members that may call this service, such as serviceAccount:web-frontend@example-project.iam.gserviceaccount.com. If empty, no member may call it."
  type        = set(string)
  default     = []
}

variable "ingress" {
  description = "The networks that can reach the service; see the provider's documentation."
  type        = string
  default     = "INGRESS_TRAFFIC_ALL"
}

variable "deletion_protection" {
  description = "Whether Terraform refuses to delete the service."
  type        = bool
  default     = true
}
